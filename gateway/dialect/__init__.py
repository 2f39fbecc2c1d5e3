"""SPEAKS.  Pure: bytes to calls, replies to readings; no clock, no chance, no I/O.

Open sets (methods, chains, error texts) are data files beside the code, and each has its unknown
case written and tested first: an unknown method gets the strictest class, an unknown error gets one
other opinion.  A dialect never imports a policy.
"""
