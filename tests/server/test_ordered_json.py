"""Keys keep their order in every database: the first configuration is the default, parameters stand as declared."""

from __future__ import annotations

from datetime import timedelta

from django.core.management import call_command
from django.db import connection

from flows.models import Flow, Schedule
from runs.models import Run
from runs.services import requests

from .conftest import NOW

LONGEST_FIRST = {"the_longest": {"b": 1, "a": [{"z": 1, "y": 2}]}, "middle": {}, "b": None, "a": "text"}


def test_what_is_written_is_read_in_its_order(db: None) -> None:
    flow = Flow.objects.create(
        name="f", slug="f", created_at=NOW, updated_at=NOW, parameters=LONGEST_FIRST, configurations=LONGEST_FIRST
    )
    Schedule.objects.create(flow=flow, kind="interval", expression="60", parameters=LONGEST_FIRST)
    Flow.objects.bulk_create(
        Flow(name=n, slug=n, created_at=NOW, updated_at=NOW, configurations=LONGEST_FIRST) for n in "gh"
    )

    written = str(LONGEST_FIRST)
    assert {str(found) for found in Flow.objects.values_list("configurations", flat=True)} == {written}
    assert str(Flow.objects.get(name="f").parameters) == written
    assert str(Schedule.objects.get().parameters) == written
    assert Flow.objects.get(name="h").default_configuration == "the_longest"


def test_a_run_keeps_the_order_of_its_parameters(flow: Flow) -> None:
    run = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana", parameters={"path": "x", "limit": 1})

    assert list(Run.objects.get(pk=run.pk).parameters) == ["path", "limit"]
    Run.objects.filter(pk=run.pk).update(parameters={"second_key": 1, "a": 2}, created_at=NOW - timedelta(days=1))
    assert list(Run.objects.get(pk=run.pk).parameters) == ["second_key", "a"]


def test_the_models_are_as_their_migrations_say(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_postgresql_keeps_the_text(db: None) -> None:
    column = Flow._meta.get_field("configurations").db_type(connection)

    assert column == ("json" if connection.vendor == "postgresql" else "text")
