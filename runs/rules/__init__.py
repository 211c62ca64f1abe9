"""Rules about runs: pure functions of values, without database, clock or request."""
