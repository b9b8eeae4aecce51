"""Conformance suites that are shipped: run them on your adapter, on your app."""
