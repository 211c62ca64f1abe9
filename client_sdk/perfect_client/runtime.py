"""What programs written for Prefect import from ``prefect.runtime``."""

from perfect_client.core.runtime import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
