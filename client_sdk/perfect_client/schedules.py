"""What programs written for Prefect import from ``prefect.schedules``."""

from perfect_client.core.schedules import CronSchedule, IntervalSchedule, Schedule

__all__ = ["CronSchedule", "IntervalSchedule", "Schedule"]
