"""What happens because time passes, and the loop that calls it."""
