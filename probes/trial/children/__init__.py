"""Programs that the target's interpreter runs by file path.

Ours imports none of them but `leftovers`, which is there for both."""
