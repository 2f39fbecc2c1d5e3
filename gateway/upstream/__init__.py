"""ACTS outwards: sends attempts, holds the live state of every endpoint, drives one call's plan.

Mutable state has one owner here (`fleet`), which has no async function: no state change spans an
await.  Nothing is dialled that the configuration does not name.

The rooms, each of which imports from those before it only (tests/test_architecture.py):
wire - fleet - calls - health - feeds - venues.
"""
