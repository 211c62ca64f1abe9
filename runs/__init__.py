"""What happens: runs, their tasks, logs and workers."""
