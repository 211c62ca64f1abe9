"""Parameters as JSON Schema: read type hints, validate, convert and mask values."""
