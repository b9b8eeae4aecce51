"""4. Answering: the request checked, the features looked up, the answer recorded before it leaves."""
