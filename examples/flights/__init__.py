"""Departures from New York in 2013: will this flight land late?"""
