"""How the embedded SQL database came to its present form: numbered revisions, run by `schema.upgrade`, never edited."""
