"""A flow file that is run by itself: its display, tables and tracebacks in a terminal."""
