"""What programs written for Prefect import from ``prefect.utilities``."""
