"""What people, schedules and the API may do with runs, and what may be asked about them."""
