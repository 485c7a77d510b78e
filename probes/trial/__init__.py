"""Trial rendezvous: real ranks that meet here for a moment."""
