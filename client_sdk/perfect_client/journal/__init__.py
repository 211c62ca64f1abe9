"""Files that outlive a process: the spool of a run's facts, the worker's journal, open lines."""
