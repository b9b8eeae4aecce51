"""Pictures and pages that need nothing else to be looked at."""
