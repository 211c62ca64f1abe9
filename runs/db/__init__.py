"""How the server uses its database: threads, maintenance, and what to do when it fails."""
