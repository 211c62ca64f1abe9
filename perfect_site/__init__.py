"""The roof: settings, the console, addresses, the server."""

from perfect_client import __version__

__all__ = ["__version__"]
