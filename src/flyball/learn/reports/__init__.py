"""What a person reads of a version: its report and its card, made of what was recorded."""
