"""Doubts about examples: what leaks, what shifted, what is there twice."""
