"""The one error of a bundle: a row that breaks the contract, or a bundle that is not what was made."""


class Refused(ValueError):
    """What was refused, and why."""
