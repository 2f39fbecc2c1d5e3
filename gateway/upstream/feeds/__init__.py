"""Subscriptions to nodes: sources, feeds and who listens.

Always true: what is told is what a machine of policy/feeds decides, in order, once, and a loss is told as one.
"""
