"""``manage.py runclock``: the clock alone, for installations with several server processes."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from perfect_site.server import installation, lifespan


class Command(BaseCommand):
    help = "Fire due schedules and watch workers, without serving anything. Any number may run at once."

    def handle(self, **options: Any) -> None:
        installation.prepare(settings.PERFECT_HOME)
        asyncio.run(self._run())

    async def _run(self) -> None:
        over = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        await lifespan.start(serve=False, served=installation.is_served)
        self.stdout.write("The clock runs. Ctrl+C stops it.")
        await over.wait()
        await lifespan.stop()
