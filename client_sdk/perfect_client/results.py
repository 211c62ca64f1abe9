"""What programs written for Prefect import from ``prefect.results``."""

from perfect_client.storage.results import FolderStore

__all__ = ["FolderStore"]
