"""1. What we know, and may believe."""
