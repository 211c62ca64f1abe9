"""Importing the user's files, and a survey of what the imports left in the process."""
