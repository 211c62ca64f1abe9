"""Calls of tasks and flows: options, decorators, futures, task runners, retries, hooks."""
