"""The way out: bytes to one endpoint and what came back, over HTTP and over WebSockets.

Always true: each exchange says how far the request got; nothing is sent twice; nothing is dialled that the
configuration does not name.  Knows no call, no health and no choice.
"""
