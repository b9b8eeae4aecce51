"""The search for knobs: what is tried, in which order, and what was tried."""
