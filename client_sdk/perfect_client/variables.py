"""What programs written for Prefect import from ``prefect.variables``."""

from perfect_client.questions.variables import Variable

__all__ = ["Variable"]
