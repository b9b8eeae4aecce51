"""5. What came of it: monitors and what follows from a breach, declared."""
