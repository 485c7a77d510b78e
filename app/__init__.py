"""The application without a screen, and its front door."""
