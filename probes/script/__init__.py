"""Training scripts, read with ast into facts with spans."""
