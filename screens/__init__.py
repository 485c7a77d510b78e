"""The faces: what a case looks like in a terminal."""
