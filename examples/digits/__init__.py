"""Handwritten digits: which one is it?"""
