"""What programs written for Prefect import from ``prefect.input``."""

from perfect_client.questions.forms import RunInput

__all__ = ["RunInput"]
