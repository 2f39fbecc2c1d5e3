"""Tests with real nodes and real client libraries, through the gateway as a user starts it."""
