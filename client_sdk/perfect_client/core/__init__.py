"""What a run is: its context, states, schedules, loggers, progress and deadlines."""
