"""One JSON-RPC call, from the route it is for to its one answer.

Always true: every call ends in exactly one answer, and every permit taken for it is settled.
"""
