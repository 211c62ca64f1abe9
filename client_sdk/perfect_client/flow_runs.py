"""What programs written for Prefect import from ``prefect.flow_runs``."""

from perfect_client.questions.pauses import apause_flow_run, aresume_flow_run, pause_flow_run, resume_flow_run

__all__ = ["apause_flow_run", "aresume_flow_run", "pause_flow_run", "resume_flow_run"]
