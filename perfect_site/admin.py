"""Where Django's admin looks for models: importing this module registers all of the console's."""

from __future__ import annotations

from perfect_site.console import flow_admin, people, run_admin  # noqa: F401
