"""PRETENDS.  Simulated providers: a deterministic chain, nodes that serve it, and every way they break.

`seawall demo`, the local configuration and the tests all stand on the same providers, so a fault
that a test knows is one that a person can switch on with curl.  Everything listens on loopback by
default and opens nothing outside.  Uses asyncio and the standard library only (the hash of
transactions is the dialect's), never the gateway's own transport or parser: a mistake there must not
hide behind the same mistake here.
chain, node, wire, faults and plays do no I/O (the clock is handed in, chance is seeded); connection,
encryption, provider and serve do.  Nothing below this floor imports it.
"""
