"""Logs, read into events and recognised by the signatures in assets."""
