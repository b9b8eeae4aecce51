"""Fitting: the declared estimator and its rivals, on rows that were known in time, and what follows their scores."""
