"""What the world is known to hold: chains and vendors, as data.

Always true: these are open sets; a chain or vendor that is not listed still works when its id and URL
are written out.  No RPC address is listed: nothing is dialled that a configuration does not name.
"""
