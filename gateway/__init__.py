"""Seawall: a reverse proxy that answers from whichever upstream can be trusted now.

The package is a house of floors; imports go down only (tests/test_architecture.py):
model, events, errors, bounds, limits (0) - policy, dialect (1) - clock, errands, telemetry, catalogue, config (2) -
upstream (3) - edge (4) - drill (5) - venue_routes, routes, assembly, cli, __main__ (6).  No `__init__` re-exports
anything: an import path is a file path.
"""

__version__ = "0.1.0"
