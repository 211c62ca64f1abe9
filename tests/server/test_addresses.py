"""Each flow has an address of its own, for ever; and a string means the flow that is named, never a similar one."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client
from perfect_client.wire import messages as p

from flows import addresses
from flows.models import Flow
from flows.parameters import Missing
from flows.services import flow_called
from runs.models import Run
from runs.services.announcements import announce

from .conftest import NOW, SPEC, FakeWorker

pytestmark = pytest.mark.django_db


def announced(*names: str) -> dict[str, str]:
    """Slugs by name."""
    flows, problems = announce(specs=[p.FlowSpec(name, fingerprint="1") for name in names], now=NOW)
    assert not problems
    return {flow.name: flow.slug for flow, _ in flows}


def command(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("triggerflow", *words, stdout=out, stderr=err)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_names_that_look_alike_have_addresses_of_their_own():
    assert announced("Sales EU", "Sales: EU", "sales-eu", "SALES EU") == {
        "Sales EU": "sales-eu",
        "Sales: EU": "sales-eu-2",
        "sales-eu": "sales-eu-3",
        "SALES EU": "sales-eu-4",
    }


def test_a_name_without_a_letter_or_digit_has_one_too():
    assert announced("💼", "%%%", "!") == {"💼": "flow", "%%%": "flow-2", "!": "flow-3"}


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Größe", "größe"), ("Run all", "run-all-2"), ("x" * 200, "x" * 190), ("売上 集計", "売上-集計"), ("a/b", "ab")],
)
def test_an_address_keeps_letters_of_every_script_and_is_never_one_of_ours(name, slug):
    assert announced(name) == {name: slug}


def test_long_names_that_begin_alike_are_told_apart_by_their_number():
    assert sorted(announced("x" * 199, "x" * 200).values()) == ["x" * 190, "x" * 190 + "-2"]


def test_an_address_is_kept_for_ever(worker):
    announced("Sales EU", "Sales: EU")
    Flow.objects.filter(name="Sales EU").update(slug="sales-eu-before")

    announce(specs=[p.FlowSpec("Sales: EU", fingerprint="2"), p.FlowSpec("Sales EU", fingerprint="2")], now=NOW)

    assert dict(Flow.objects.values_list("name", "slug"))["Sales: EU"] == "sales-eu-2"
    assert Flow.objects.get(name="Sales EU").slug == "sales-eu-before"


def test_a_flow_that_others_have_called_keeps_its_address_when_it_is_announced():
    first = flow_called(name="Load Data", now=NOW)
    second = flow_called(name="LOAD DATA", now=NOW)

    assert announced("LOAD DATA", "load-data") == {"LOAD DATA": "load-data-2", "load-data": "load-data-3"}
    assert (first.slug, second.slug) == ("load-data", "load-data-2")


@pytest.mark.django_db(transaction=True)
def test_two_processes_that_add_flows_at_once_give_them_different_addresses():
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer, and in memory one connection")
    names, go, made = ["Race", "race", "RACE", "Race!"], threading.Barrier(4), []

    def add(name: str) -> None:
        go.wait(10)
        made.append(addresses.insert(Flow(name=name, created_at=NOW, updated_at=NOW)).slug)
        connections.close_all()

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == ["race", "race-2", "race-3", "race-4"]


def test_an_address_that_is_taken_at_the_last_moment_is_not_taken_twice(monkeypatch):
    """Another process adds its flow between the look and the insert."""
    look = addresses.free_slug

    def free_slug(name: str) -> str:
        slug = look(name)
        if not Flow.objects.exists():
            Flow.objects.create(name="RACE", slug=slug, created_at=NOW, updated_at=NOW)
        return slug

    monkeypatch.setattr(addresses, "free_slug", free_slug)

    assert addresses.insert(Flow(name="Race", created_at=NOW, updated_at=NOW)).slug == "race-2"


def test_a_flow_that_another_process_adds_at_the_last_moment_is_that_flow(monkeypatch):
    def free_slug(name: str) -> str:
        Flow.objects.create(name=name, slug="race", created_at=NOW, updated_at=NOW)
        return "race"

    monkeypatch.setattr(addresses, "free_slug", free_slug)

    assert addresses.insert(Flow(name="Race", created_at=NOW, updated_at=NOW)) == Flow.objects.get()


# ------------------------------------------------------------------------------------------------------- what is meant


@pytest.mark.parametrize("text", ["SALES EU", "sales eu", "Sales-EU", "Sales  EU", "Sales", "sales-eu-9"])
def test_a_similar_name_runs_nothing(text):
    announced("Sales: EU")

    code, out, err = command(text)

    assert (code, out) == (4, "")
    assert f"There is no flow {text!r}" in err and "'Sales: EU'" in err
    assert not Run.objects.exists()


def test_the_exact_name_comes_before_the_address_of_another_flow():
    announced("Sales EU", "sales-eu")

    assert [command(text)[0] for text in ("sales-eu", "Sales EU", "sales-eu-2")] == [0, 0, 0]
    assert list(Run.objects.order_by("pk").values_list("flow__name", flat=True)) == ["sales-eu", "Sales EU", "sales-eu"]


def test_several_near_names_are_all_named():
    announced("Sales EU", "Sales US")

    with pytest.raises(Missing, match="'Sales EU' or 'Sales US'|'Sales US' or 'Sales EU'"):
        addresses.named("SALES XU")


@pytest.fixture
def call(make_token: Any) -> Any:
    secret = make_token("admin")

    def call(method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body) if body is not None else ""
        headers = {"Authorization": f"Bearer {secret}"}
        answer = Client().generic(method, f"/api{path}", data, content_type="application/json", headers=headers)
        return answer.status_code, json.loads(answer.content) if answer.content else None

    return call


def test_the_api_gives_addresses_that_every_client_can_use(call):
    announced("Größe")

    (item,) = call("GET", "/flows")[1]["items"]

    assert (item["slug"], item["url"]) == ("größe", "/flows/gr%C3%B6%C3%9Fe/")
    assert call("GET", "/flows/gr%C3%B6%C3%9Fe")[1]["url"] == item["url"]


@pytest.mark.parametrize("text", ["SALES EU", "sales eu", "Sales-EU"])
def test_no_door_of_the_api_takes_a_similar_name(call, text):
    announced("Sales: EU")

    wish = {"kind": "interval", "expression": "60", "flow": text}
    answers = [
        call("POST", "/runs", {"items": [{"flow": text}]}),
        call("POST", "/schedules", wish),
        call("GET", f"/runs?flow={text.replace(' ', '%20')}"),
        call("GET", f"/schedules?flow={text.replace(' ', '+')}"),
    ]

    assert [status for status, _ in answers] == [404] * 4
    assert not Run.objects.exists()


def test_a_filter_by_address_lists_no_run_of_the_flow_that_is_named_so(call):
    announced("Sales EU", "sales-eu")
    for name in ("Sales EU", "sales-eu"):
        assert command(name)[0] == 0

    listed = call("GET", "/runs?flow=sales-eu")[1]["items"]

    assert [item["name"] for item in listed] == ["Sales EU"]
    assert [item["name"] for item in call("GET", "/runs?flow=sales-eu-2")[1]["items"]] == ["sales-eu"]


def test_flows_that_look_alike_run_where_they_are_offered():
    ones, others = FakeWorker(replace(SPEC, name="Sales EU")), FakeWorker(replace(SPEC, name="sales-eu"), name="w2")
    ones.join()
    others.join()
    assert command("sales-eu")[0] == 0

    assert ones.offers() == []
    (order,) = others.offers()
    assert order.flow == "sales-eu"


def test_a_flow_named_as_an_address_of_ours_can_be_read_by_the_api(call):
    announced("Run all")

    assert call("GET", "/flows/run-all-2")[1]["name"] == "Run all"
