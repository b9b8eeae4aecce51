"""What closes the loop: plan, apply, why."""
