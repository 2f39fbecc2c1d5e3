"""Measures Seawall beside nginx, HAProxy and Envoy. Run with `python -m benchmarks`; README.md says how to read it."""
