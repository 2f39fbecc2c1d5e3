"""What the command line shows: tables made from a status report, the same for one gateway and for many.

Does not belong here: commands and their options (__main__), or where a report comes from.
"""
