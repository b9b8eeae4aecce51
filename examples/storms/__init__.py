"""Departures from New York in 2013: is the weather of this hour out of the ordinary?"""
