"""What Rejoin costs and how long it takes, measured beside the design of the tutorials. `make bench`."""
