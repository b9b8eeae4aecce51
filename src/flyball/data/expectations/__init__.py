"""What is expected of a table, measured and judged."""
