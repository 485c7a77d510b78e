"""Distributed jobs that are alive on this host."""
