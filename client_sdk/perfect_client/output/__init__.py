"""Standard output of a run: captured, passed on, turned into log lines."""
