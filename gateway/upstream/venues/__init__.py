"""Exchanges: one request or stream to its venue, within the venue's limits.

Always true: a write is handed to one host once; what is signed goes on byte for byte; no limit is exceeded.
"""
