"""Questions that running code asks the server: limits, variables, pauses and their forms."""
