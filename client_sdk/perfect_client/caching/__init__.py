"""Results used again: cache keys, lineage, resume, transactions."""
