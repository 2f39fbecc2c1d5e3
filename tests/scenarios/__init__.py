"""The whole gateway against fault-injecting providers, over real loopback sockets."""
