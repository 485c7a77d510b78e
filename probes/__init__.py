"""The eyes: each probe looks at one thing and says what it saw."""
