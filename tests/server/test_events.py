"""Who is told of a commit: this process's subscribers, and the other processes by the notifier that a server sets."""

from __future__ import annotations

import pytest

from runs import events

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_server_tells_other_processes_by_its_own_notifier():
    told: list[frozenset[str]] = []
    events.set_notifier(told.append)
    try:
        events.publish("run:1", "overview")
    finally:
        events.set_notifier(None)

    assert told == [frozenset({"run:1", "overview"})]
