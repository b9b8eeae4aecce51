"""How a contract changes, and its table with it."""
