#!/usr/bin/env python
"""Perfect's commands: ``python manage.py help``."""

import os
import sys

from django.core.management import execute_from_command_line

from perfect_site.env import BadSetting


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "perfect_site.settings")
    try:
        execute_from_command_line(sys.argv)
    except BadSetting as bad:
        sys.exit(f"perfect: {bad}")


if __name__ == "__main__":
    main()
