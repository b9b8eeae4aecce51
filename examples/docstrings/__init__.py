"""Docstrings of scikit-learn: which part of it is this one from?"""
