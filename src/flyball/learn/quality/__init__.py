"""Quality: metrics with intervals, evaluations, and what each feature is worth."""
