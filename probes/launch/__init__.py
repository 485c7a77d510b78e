"""Launch commands, read into a LaunchPlan and written back."""
