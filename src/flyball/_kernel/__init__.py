"""The words that everybody uses. Imports nothing of ours."""
