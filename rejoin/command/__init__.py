"""`rejoin` on the command line."""
