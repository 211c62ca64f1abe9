"""The REST API: routes, access, bodies, answers, and errors."""
