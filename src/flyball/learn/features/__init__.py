"""Features: one definition, two times.

`declare` says what a feature is. `offline` builds it for every question of the past, as it was known when each was asked;
`online` keeps it ready for the question that is asked now. Both follow one meaning of time, and are tested against one oracle.
"""
