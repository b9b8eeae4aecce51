"""Departures from New York again, as somebody's desk would send them: dirty files, and what becomes of every line."""
