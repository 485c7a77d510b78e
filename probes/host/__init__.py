"""This host: processes, limits, Python and torch, containers."""
