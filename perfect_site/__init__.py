"""The roof: settings, the console, addresses, the server."""

__version__ = "0.1.0"
