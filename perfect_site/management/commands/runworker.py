"""``manage.py runworker``: the same worker, with the same options, as ``python -m perfect_client worker``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import perfect_client
from django.conf import settings
from django.core.management.base import BaseCommand
from perfect_client import cli

from perfect_site.server import local


class Command(BaseCommand):
    help = "Run the flows of files, folders or modules for the server."
    requires_system_checks: list[str] = []  # a worker uses neither the database nor the pages

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        cli.add_arguments(parser)

    def handle(self, **options: Any) -> None:
        os.environ["PERFECT_HOME"] = str(settings.PERFECT_HOME)
        os.environ["PERFECT_URL"] = local.server_url(settings.PERFECT_HOME, settings.PERFECT_URL)
        # Flows run in processes of their own: they shall find the SDK, and not find Django set up for Perfect.
        sdk = str(Path(perfect_client.__file__).resolve().parent.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sdk, os.environ.get("PYTHONPATH", "")]))
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        sys.exit(cli.run_worker(argparse.Namespace(**options)))
