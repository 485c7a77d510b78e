"""Programs that the target's interpreter runs by file path; nothing here is imported by ours."""
