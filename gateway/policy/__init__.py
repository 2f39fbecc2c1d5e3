"""DECIDES.  Pure: no async, no clock, no chance, no logging, no I/O, no third-party package.

`now` and random numbers are arguments.  Each policy's settings, with default, unit and bound, live
in its own module.  What a policy needs of a protocol arrives as facts on the call; it never
imports a dialect.
"""
