"""Measurements of the running proxy, each a script: `python -m benchmarks.bench` and so on. Nothing here is imported
by the proxy."""
