"""What programs written for Prefect import from ``prefect.input``."""

from perfect_client.questions.inputs import RunInput

__all__ = ["RunInput"]
