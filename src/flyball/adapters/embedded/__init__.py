"""One machine: SQLite, files, processes. The default, and first class."""
