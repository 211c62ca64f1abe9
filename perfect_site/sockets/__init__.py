"""The WebSockets of workers and browsers."""
