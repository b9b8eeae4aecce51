"""Everything in memory, for rehearsal and tests."""
