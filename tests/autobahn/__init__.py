"""The Autobahn WebSocket test suite against both of our sides.  It needs Python 2.7 (`make autobahn`)."""
