"""What programs written for Prefect import from ``prefect.flows``."""

from perfect_client.engine.decorators import Flow, flow

__all__ = ["Flow", "flow"]
