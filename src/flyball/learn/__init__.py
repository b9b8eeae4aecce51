"""2. What we can predict, how well, and may it be released."""
