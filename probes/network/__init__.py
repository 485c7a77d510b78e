"""Ports, names, interfaces and who answers where."""
