"""The policies of subscriptions: what callers are told of what upstreams push, poll and answer.

Always true: a module here is a machine without I/O: the shell hands it what came and when, and does what
it returns; whatever sources do, what callers are told is in order, once, and a loss is told as one.
"""
