"""Artifacts become rows: part by part, each once, within limits; what is wrong is set aside and the rest goes on."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.wire import artifact_content, messages
from perfect_client.wire import messages as p

from runs.ingest import ledger
from runs.models import Artifact, Quarantine, Run
from runs.services import requests

from .conftest import NOW, seconds

pytestmark = pytest.mark.django_db
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1500  # 384,008 bytes: six parts as base64


def written(data: str = "# Hi", kind: str = "markdown", uid: str = "", **more: Any) -> p.ArtifactWritten:
    return p.ArtifactWritten(seconds(1), uid or str(uuid.uuid4()), kind, data=data, **more)


def remembering(say: Any) -> Any:
    """Say it as in a real server: what is committed stays on the shelf for the next batch."""

    def said(*args: Any, **options: Any) -> Any:
        with TestCase.captureOnCommitCallbacks(execute=True):
            return say(*args, **options)

    return said


def picture(content: bytes = PNG) -> list[p.ArtifactWritten]:
    whole = written("", "plot", key="curve", coded=base64.b64encode(content).decode())
    return messages.split_artifact(whole)


def begun(worker: Any) -> p.OfferRun:
    order = worker.take()
    worker.say(order, p.RunStarted(seconds()))
    return order


def test_an_artifact_of_each_kind_is_kept(worker, run):
    order, say = begun(worker), remembering(worker.say)

    say(
        order,
        p.TaskStarted(seconds(), 1, "extract"),
        written(key="notes", description="What happened", task=1),
        written('{"link":"https://example.org/","text":"there"}', "link"),
        written('{"columns":["a"],"rows":[[1],["x"],[null]]}', "table"),
        written("12.5", "progress"),
        written("https://example.org/x.png", "image"),
        written("<svg></svg>", "plot"),
        written("", "image", coded=base64.b64encode(b"GIF89a...").decode()),
        first=2,
    )

    rows = list(Artifact.objects.whole())
    assert [row.kind for row in rows] == ["markdown", "link", "table", "progress", "image", "plot", "image"]
    assert (rows[0].key, rows[0].description, rows[0].task, rows[0].data) == ("notes", "What happened", 1, "# Hi")
    assert (rows[2].rows, rows[2].size) == (3, len('{"columns":["a"],"rows":[[1],["x"],[null]]}'))
    assert (bytes(rows[5].content), rows[5].media_type, rows[5].data) == (b"<svg></svg>", "image/svg+xml", "")
    assert (bytes(rows[6].content), rows[6].media_type) == (b"GIF89a...", "image/gif")
    assert not Quarantine.objects.exists()
    say(order, p.Logged(seconds(2), "later"), first=10)
    run.refresh_from_db()
    assert (run.artifact_writes, run.log_count) == (7, 1)  # a batch without artifacts writes none


def test_parts_are_put_together_over_batches_and_restarts_of_the_server(worker, run):
    order, parts = begun(worker), picture()
    assert len(parts) == 6

    for seq, part in enumerate(parts, 2):
        worker.say(order, part, first=seq)
        ledger.ledgers.clear()  # the server's memory is gone
        assert Artifact.objects.whole().count() == (part.part == 6)

    row = Artifact.objects.get()
    assert (bytes(row.content), row.media_type, row.key, row.data) == (PNG, "image/png", "curve", "")
    assert row.size == len(PNG)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_however_batches_are_cut_repeated_and_overlap_it_is_there_once(worker, flow, seed):
    random = Random(seed)
    requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    order = worker.take()
    parts, other = picture(), messages.split_artifact(written("ä" * 150_000))
    facts: list[Any] = [p.RunStarted(seconds()), *parts, *other, written("last"), p.RunEnded(seconds(2), "COMPLETED")]

    acked = 0
    while acked < len(facts):
        first, last = random.randint(1, acked + 2), random.randint(acked, len(facts))
        answer = remembering(worker.say)(order, *facts[first - 1 : last], first=first)
        assert isinstance(answer, p.Resend) == (first > acked + 1)
        acked = getattr(answer, "upto", acked)
        if random.random() < 0.5:
            ledger.ledgers.clear()

    rows = list(Artifact.objects.whole().filter(run=order.run))
    assert [row.kind for row in rows] == ["plot", "markdown", "markdown"]
    assert (bytes(rows[0].content), rows[1].data, rows[2].data) == (PNG, "ä" * 150_000, "last")
    assert not Quarantine.objects.exists()
    assert Run.objects.get(pk=order.run).state == "COMPLETED"


def test_parts_of_several_may_be_mixed(worker, run):
    order, one, two = begun(worker), picture(), messages.split_artifact(written("x" * 200_000))

    mixed = [part for pair in zip(one, two) for part in pair]
    worker.say(order, *mixed, *one[len(two) :], first=2)

    assert {row.kind: row.size for row in Artifact.objects.whole()} == {"plot": len(PNG), "markdown": 200_000}


def test_what_follows_nothing_is_set_aside_and_the_stream_goes_on(worker, run):
    order, parts = begun(worker), picture()

    answer = worker.say(order, parts[1], parts[0], parts[2], replace(parts[1], parts=9), written("fine"), first=2)

    assert answer == p.Acknowledge(order.fence, 6)
    assert ["follows nothing" in row.reason for row in Quarantine.objects.all()] == [True, True, True]
    assert [row.data for row in Artifact.objects.whole()] == ["fine"]


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (written(uid="not-a-uuid"), "badly formed"),
        (written(kind="video"), "no kind of artifact 'video'"),
        (written("{}", "table"), "not a table"),
        (written('{"columns":null,"rows":[[{}]]}', "table"), "not a table"),
        (written("[" * 90_000, "table"), "not a table"),
        (written("7", "link"), "not a link"),
        (written("101", "progress"), "between 0 and 100"),
        (written("NaN", "progress"), "not a progress"),
        (written("<html><script>", "plot"), "not a PNG"),
        (written("", "plot", coded="!!!!"), "damaged"),
        (written("", "plot", coded=base64.b64encode(b"<html>").decode()), "not a PNG"),
        (written("", "markdown", coded=base64.b64encode(PNG[:99]).decode()), "not a PNG"),
        (written(parts=0), "1 to 64 parts"),
        (written(parts=65), "1 to 64 parts"),
        (written(part=0), "follows nothing"),
        (written(task=-1), "number of a task run"),
        (replace(written(), time=1e300), "year|time"),
    ],
)
def test_what_is_no_artifact_is_set_aside_with_its_reason(worker, run, fact, words):
    order = begun(worker)

    answer = worker.say(order, fact, written("after it"), first=2)

    assert answer == p.Acknowledge(order.fence, 3)
    assert any(word in Quarantine.objects.get().reason for word in words.split("|"))
    assert [row.data for row in Artifact.objects.whole()] == ["after it"]


def test_an_update_replaces_the_content_and_keeps_place_key_and_words(worker, run):
    order = begun(worker)
    bar = written("10.0", "progress", key="rows", description="Rows read")
    worker.say(order, bar, written("later"), first=2)

    worker.say(order, replace(bar, data="55.5", key="", description="", time=seconds(9)), first=4)
    worker.say(order, replace(bar, data="99.0", key="other", description="Nearly"), first=5)
    worker.say(order, written("not a bar", uid=bar.artifact), first=6)

    row = Artifact.objects.first()
    assert (Artifact.objects.count(), row.data, row.key, row.description) == (2, "99.0", "rows", "Nearly")
    assert row.created_at == NOW + (row.created_at - NOW) and row.created_at.timestamp() == seconds(1)
    assert "cannot become a markdown" in Quarantine.objects.get().reason
    run.refresh_from_db()
    assert run.artifact_writes == 4


def test_a_run_keeps_only_so_many_and_so_much(worker, run, monkeypatch):
    monkeypatch.setattr(artifact_content, "MAX_RUN_COUNT", 3)
    monkeypatch.setattr(artifact_content, "MAX_RUN_BYTES", 700_000)  # what is half-written counts, too
    monkeypatch.setattr(artifact_content, "MAX_BYTES", 250_000)
    order = begun(worker)
    large = messages.split_artifact(written("x" * 260_000))
    two = [*messages.split_artifact(written("x" * 240_000)), *messages.split_artifact(written("y" * 240_000))]

    worker.say(order, *large, *two, written("z" * 30_000), first=2)
    ledger.ledgers.clear()
    worker.say(order, written("a"), written("b"), first=2 + len(large) + len(two) + 1)

    reasons = [row.reason for row in Quarantine.objects.all()]
    assert "larger than 250,000 bytes" in reasons[0]
    assert all("a run may have 3 artifacts" in reason for reason in reasons[1:])
    assert len(reasons) == 4
    assert [row.size for row in Artifact.objects.whole()] == [240_000, 240_000]


def test_after_the_end_of_a_run_nothing_is_added(worker, run):
    order = begun(worker)

    worker.say(order, p.RunEnded(seconds(2), "COMPLETED"), written(), first=2)
    worker.say(order, written(), first=4)

    assert not Artifact.objects.exists()


def test_a_superseded_attempt_adds_nothing(worker, run):
    order = begun(worker)
    Run.objects.update(fence=order.fence + 1)
    ledger.ledgers.clear()

    assert isinstance(worker.say(order, written(), first=2), p.DropRun)
    assert not Artifact.objects.exists()


def test_a_run_without_artifacts_costs_no_statement_more(worker, run):
    order = begun(worker)
    worker.say(order, p.TaskStarted(seconds(), 1, "extract"), first=2)

    with CaptureQueriesContext(connection) as asked:
        worker.say(order, p.TaskEnded(seconds(1), 1, "COMPLETED"), first=3)

    assert not [query["sql"] for query in asked if "runs_artifact" in query["sql"]]


def test_the_head_is_what_a_page_can_carry(worker, run):
    order = begun(worker)
    table = json.dumps({"columns": ["a", "b"], "rows": [["x" * 500, n] for n in range(150)]})

    worker.say(order, written(table, "table"), written("line\n" * 15_000), first=2)

    kept, text = Artifact.objects.whole()
    assert (kept.rows, len(json.loads(kept.head)["rows"])) == (150, 61)
    assert 16_000 < len(text.head) <= 16 * 1024 and text.head.endswith("line")
    assert len(text.data) == 75_000
