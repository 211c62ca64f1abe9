"""The server process: HTTP, limits, health, static files, and its own machine."""
