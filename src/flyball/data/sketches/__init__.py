"""What a table looks like, in one pass: mergeable sketches of its columns."""
