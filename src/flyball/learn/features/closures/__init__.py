"""Polars expressions over one row as Python closures: what each node means, to the last bit.

`term` is what a node becomes and how values change type; `numbers`, `logic`, `texts` and `times` know the nodes; `reading`
walks an expression. What is not known for certain is left to Polars: when an expression is read (Untranslated), or for a
single row (Unsure).
"""
