"""Data only: the tree, the pages of the causes, signatures, templates, schemas."""
