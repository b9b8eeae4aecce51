"""The world, one folder each, ignorant of one another."""
