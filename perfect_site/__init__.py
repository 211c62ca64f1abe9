"""What people and programs talk to: settings, addresses, accounts, and the folders of pages, API and sockets."""

from perfect_client import __version__

__all__ = ["__version__"]
