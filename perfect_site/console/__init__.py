"""The console: Django's admin site and every model in it."""
