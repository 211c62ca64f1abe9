"""Fingerprints of a task's source: what its code names, and whether that has changed."""
