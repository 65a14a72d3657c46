"""What an operator runs: everything on one machine, and a look at what runs."""
