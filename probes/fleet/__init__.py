"""Several hosts: each is asked, they are compared, and they reach for each other."""
