"""The runs app: what a change of a flow means for those who listen to the doorbell."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

from flows.signals import flow_changed
from runs import events


class RunsConfig(AppConfig):
    name = "runs"

    def ready(self) -> None:
        flow_changed.connect(ring, dispatch_uid="runs.ring")


def ring(*, slug: str, **_: Any) -> None:
    events.publish(events.OVERVIEW, events.SCHEDULES, events.flow_topic(slug))
