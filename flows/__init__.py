"""What can be run: flows, their parameters and schedules."""
