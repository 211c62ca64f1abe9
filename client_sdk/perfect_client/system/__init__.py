"""Processes, event loop and descriptors of the operating system."""
