"""Examination: what a trained version is like beyond its metrics, measured by pure functions on held-out rows.

    worst       groups of rows that it answers worse than the rest, found on one half of the rows and confirmed on the other
    robust      what noise, missing columns, unseen categories, other units and an adversary do to its answers
    diagnosis   whether it overfits, underfits, or wants more rows        seeds   whether another seed would be another model
    trust       whether its numbers mean what they say (calibration)      size    what it weighs, and how long it takes
    paired      whether it really differs from the champion

`examined.examine` runs them on a `subject.Subject` and gathers one `Examined`, which can be stored; `told` says what matters.
"""
