"""What programs written for Prefect import from ``prefect.context``."""

from perfect_client.core.context import Configuration, FlowRunContext, TaskRunContext, get_run_context, tags

__all__ = ["Configuration", "FlowRunContext", "TaskRunContext", "get_run_context", "tags"]
