"""From a cause to a fix: edits of the plan and of script spans, steps, checks."""
