"""Benchmarks: ours, the raw limit and the installed peers, in pairs in one run, on work whose results are compared."""
