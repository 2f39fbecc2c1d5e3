"""LISTENS: turns callers' bytes into calls and answers into bytes, within limits.

The edge never imports a policy: it sees the words, the dialects and what `upstream` offers.
Everything a caller can send is hostile until parsed.
"""
