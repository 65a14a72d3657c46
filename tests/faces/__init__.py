"""Real clients, unmodified, against each face: what a team that plugs in its own gets."""
