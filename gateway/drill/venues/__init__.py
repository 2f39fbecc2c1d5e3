"""Simulated exchanges: loopback servers that verify signatures over the exact bytes and keep a record of orders.

Always true: what an exchange executed is counted by itself, whatever its answer said or whether one was sent: the
truth that tests of order safety are held against.
"""
