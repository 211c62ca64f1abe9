"""No row holds a secret as it was given, whatever door it came by; who has the key reads it as before."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.schema import masking
from perfect_client.wire import messages

from flows import sealing, timetable
from flows.models import Flow, Schedule
from flows.parameters import Refused
from perfect_site import env
from runs.clock import steps
from runs.ingest import dispatch
from runs.models import Attempt, Question, Run, Variable
from runs.services import limits, queries, questions, requests
from runs.services.announcements import announce

from .conftest import NOW, FakeWorker, seconds
from .test_security_matrix import client_of

CANARY = "canary-" + "q7" * 8
SCHEMA = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "writeOnly": True},
        "db_password": {"type": "string", "default": "dev"},
        "login": {"type": "object", "properties": {"pin": {"type": "string", "writeOnly": True}}},
        "count": {"type": "integer", "default": 1},
    },
    "additionalProperties": False,
}
GIVEN = {"key": CANARY, "db_password": CANARY, "login": {"pin": CANARY, "user": "ana"}, "count": 3}
SPEC = messages.FlowSpec(
    "Vault",
    parameters=SCHEMA,
    configurations={"live": {"db_password": CANARY}},
    schedules=[messages.ScheduleSpec("cron", "0 3 * * *", name="nightly", parameters=GIVEN)],
)
COLUMNS = [
    ("flows_flow", "parameters"),
    ("flows_flow", "configurations"),
    ("flows_schedule", "parameters"),
    ("runs_run", "parameters"),
    ("runs_variable", "value"),
    ("runs_question", "answer"),
    ("runs_question", "body"),
    ("runs_quarantine", "fact"),
    ("runs_event", "why"),
]


def written() -> str:
    """All that stands in the columns where a secret could be."""
    found = []
    with connection.cursor() as cursor:
        for table, column in COLUMNS:
            cursor.execute(f"SELECT {column} FROM {table}")
            found += [str(value) for (value,) in cursor.fetchall()]
    return "\n".join(found)


@pytest.fixture
def worker(db: None) -> FakeWorker:
    worker = FakeWorker(SPEC, slots=9)
    worker.join()
    return worker


@pytest.fixture
def vault(worker: FakeWorker) -> Flow:
    return Flow.objects.get(name="Vault")


def by_api(flow: Flow) -> None:
    body = {"parameters": GIVEN}
    answer = client_of("operator").post(f"/api/flows/{flow.slug}/runs", body, content_type="application/json")
    assert answer.status_code == 201, answer.content


def by_bulk(flow: Flow) -> None:
    body = {"items": [{"flow": flow.slug, "parameters": GIVEN}] * 2}
    answer = client_of("operator").post("/api/runs", body, content_type="application/json")
    assert answer.status_code == 201, answer.content


def by_page(flow: Flow) -> None:
    sent = {
        "form": "1",
        "configuration": "live",
        "p-key": CANARY,
        "p-db_password": CANARY,
        "p-login": json.dumps(GIVEN["login"]),
        "p-count": "3",
    }
    answer = client_of("operator").post(f"/flows/{flow.slug}/run/", sent)
    assert answer.status_code == 302, answer.content.decode()


def by_run_again(flow: Flow) -> None:
    run = requests.trigger(flow=flow, now=NOW, trigger="api", who="ana", parameters=GIVEN)
    requests.cancel(run_id=run.pk, now=NOW, who="ana")
    requests.retry(run_id=run.pk, now=NOW, trigger="api", who="ana")


def by_shell(flow: Flow) -> None:
    call_command("triggerflow", flow.name, *[f"-p{name}={json.dumps(value)}" for name, value in GIVEN.items()])


def by_schedule(flow: Flow) -> None:
    values = {"kind": "cron", "expression": "0 6 * * *", "parameters": GIVEN}
    made = timetable.create(flow=flow, values=values, now=NOW, who="ana")
    steps.fire(made, NOW + timedelta(days=1))
    timetable.change(schedule_id=made.pk, values={"expression": "0 7 * * *"}, now=NOW, who="ana")


def by_console(flow: Flow) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    row = Schedule.objects.get(name="nightly")
    address = f"/admin/flows/schedule/{row.pk}/change/"
    form = client.get(address).context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if value is not None}
    sent["parameters"] = json.dumps({**form.initial["parameters"], "count": 8})
    assert client.post(address, sent).status_code == 302


def by_update(flow: Flow) -> None:
    """No door of ours: whoever writes past the row must not leave a secret either."""
    run = requests.trigger(flow=flow, now=NOW, trigger="api", who="ana", parameters={"key": "k" * 9})
    Run.objects.filter(pk=run.pk).update(parameters=GIVEN)
    run.parameters = GIVEN
    Run.objects.bulk_update([run], ["parameters"])


DOORS = [by_api, by_bulk, by_page, by_run_again, by_shell, by_schedule, by_console, by_update]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_secret_given_by_any_door_is_encrypted_and_the_flow_gets_it(
    door: Callable[[Flow], None], worker: FakeWorker, vault: Flow
) -> None:
    door(vault)

    assert CANARY not in written()
    assert sealing.MARK in written()
    assert {CANARY} == {row.parameters["key"] for row in Schedule.objects.all()}
    dispatch.forget_all()  # what was read from the row, not what the memory of this process has
    orders = worker.offers()
    assert len(orders) == Run.objects.filter(state="OFFERED").count() or door is by_console
    assert all(order.parameters["key"] == CANARY and order.parameters["count"] == 3 for order in orders)


def test_what_is_no_secret_stands_as_it_is(vault: Flow) -> None:
    run = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana", parameters=GIVEN)

    with connection.cursor() as cursor:
        cursor.execute("SELECT parameters FROM runs_run")
        ((row,),) = cursor.fetchall()
    kept = row if isinstance(row, dict) else json.loads(row)
    assert (kept["count"], kept["login"]["user"]) == (3, "ana")
    assert Run.objects.get(pk=run.pk).parameters == GIVEN


def test_what_code_announces_leaves_no_secret(vault: Flow) -> None:
    assert CANARY not in written()
    assert vault.configurations == {"live": {"db_password": "***"}}
    assert vault.parameters["properties"]["db_password"]["default"] == "***"


def test_variables_under_secret_names_and_answers_are_encrypted(worker: FakeWorker, vault: Flow) -> None:
    limits.set_variable(name="api_key", value=CANARY, now=NOW, who="ana")
    limits.set_variable(name="settings", value={"password": CANARY, "depth": 2}, now=NOW, who="ana")
    requests.trigger(flow=vault, now=NOW, trigger="api", who="ana")
    order = worker.take()
    asks = [
        messages.Asked(seconds(), 1, "variable.get", {"name": "api_key"}),
        messages.Asked(seconds(), 2, "variable.set", {"name": "db_password", "value": CANARY}),
        messages.Asked(seconds(), 3, "pause", {"schema": SCHEMA}),
        {"type": "Asked", "time": seconds(), "ask": "four", "kind": "variable.set", "body": {"value": CANARY}},
    ]
    worker.say(order, *asks)
    requests.go_on(run_id=Run.objects.get().pk, given={"key": CANARY}, now=NOW, who="ana")

    assert CANARY not in written()
    told = {answer.ask: answer.body for _, answer in questions.due(workers=[worker.id], now=NOW)}
    assert (told[1], told[3]) == ({"value": CANARY}, {"input": {"key": CANARY}})
    assert limits.find_variable("settings").value == {"password": CANARY, "depth": 2}
    assert limits.find_variable("db_password").value == CANARY


TEXTS = st.text(max_size=20) | st.just(sealing.MARK) | st.text(max_size=9).map(lambda text: sealing.MARK + text)
NAMES = st.sampled_from(["a", "key", "password", "api_key", "tokens", "login", "pin"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@hypothesis.settings(deadline=None)
@given(VALUES, st.sampled_from([{}, SCHEMA, sealing.ALL, {"properties": {"a": SCHEMA}}]))
def test_what_was_sealed_is_unsealed_as_it_was_and_nothing_that_is_masked_is_left(value: Any, schema: Any) -> None:
    sealed = sealing.seal(value, schema)

    assert sealing.unseal(json.loads(messages.dumps(sealed))) == value
    shown = json.dumps(masking.mask(value, schema))  # what is no secret may have the same text
    hidden = json.dumps([text for text in masking.secrets_in(value, schema) if text not in ("", sealing.MARK)])
    for secret in json.loads(hidden):
        assert not isinstance(secret, str) or len(secret) < 6 or secret in shown or secret not in json.dumps(sealed)


# ------------------------------------------------------------------------------------------------------------ keys


def test_without_the_key_a_run_waits_with_its_reason_and_holds_nobody_up(
    worker: FakeWorker, vault: Flow, settings: Any
) -> None:
    secret = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana", parameters=GIVEN)
    fires = timetable.create(
        flow=vault, values={"kind": "cron", "expression": "0 6 * * *", "parameters": GIVEN}, now=NOW, who="ana"
    )
    right, settings.PERFECT_ENCRYPTION_KEYS = settings.PERFECT_ENCRYPTION_KEYS, ["another-" * 5]
    dispatch.forget_all()
    plain = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana", parameters={"count": 5})

    assert [order.run for order in worker.offers(free=1)] == [str(plain.pk)]
    waits = Run.objects.get(pk=secret.pk)
    assert "Put that key back (PERFECT_ENCRYPTION_KEY, or the file" in queries.waiting_reason(waits)
    viewer = client_of("viewer")
    assert viewer.get(f"/runs/{secret.pk}/?tab=parameters").status_code == 200
    assert viewer.get("/api/runs").json()["items"][-1]["parameters"]["key"] == "***"
    requests.cancel(run_id=plain.pk, now=NOW, who="ana")
    fires.refresh_from_db()
    steps.fire(fires, NOW + timedelta(days=1))
    fires.refresh_from_db()
    assert fires.problem.startswith("Parameter 'key' cannot be read: it was encrypted with a key that this server")
    fires.save()  # whoever saves what he cannot read loses nothing

    settings.PERFECT_ENCRYPTION_KEYS = right
    dispatch.forget_all()  # the server was started again
    assert [order.parameters for order in worker.offers(free=1)] == [GIVEN]
    assert Schedule.objects.get(pk=fires.pk).parameters == GIVEN


def test_without_the_key_to_run_again_is_refused_in_a_sentence(vault: Flow, settings: Any) -> None:
    run = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana", parameters=GIVEN)
    requests.cancel(run_id=run.pk, now=NOW, who="ana")
    settings.PERFECT_ENCRYPTION_KEYS = ["another-" * 5]

    with pytest.raises(Refused, match="Parameter 'key' cannot be read"):
        requests.retry(run_id=run.pk, now=NOW, trigger="api", who="ana")
    requests.retry(run_id=run.pk, now=NOW, trigger="api", who="ana", parameters={"key": "given anew"})


def test_without_the_key_code_is_told_so_where_it_asked(worker: FakeWorker, vault: Flow, settings: Any) -> None:
    limits.set_variable(name="api_key", value=CANARY, now=NOW, who="ana")
    requests.trigger(flow=vault, now=NOW, trigger="api", who="ana")
    attempt = Attempt.objects.get(pk=worker.take().fence)
    Question.objects.create(
        attempt=attempt, number=1, kind="variable.get", body={"name": "api_key"}, asked_at=NOW, answer={"value": CANARY}
    )
    settings.PERFECT_ENCRYPTION_KEYS = ["another-" * 5]

    ((_, answer),) = questions.due(workers=[worker.id], now=NOW)
    assert "the answer cannot be read" in answer.body["error"]
    with pytest.raises(Refused, match="variable 'api_key' cannot be read"):
        questions._get_variable(Run.objects.get(), Question(body={"name": "api_key"}), NOW)


def test_keys_rotate(vault: Flow, settings: Any) -> None:
    old, new = settings.PERFECT_ENCRYPTION_KEYS[0], "the-next-key-" * 4
    run = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana", parameters=GIVEN)
    limits.set_variable(name="api_key", value=CANARY, now=NOW, who="ana")

    settings.PERFECT_ENCRYPTION_KEYS = [new, old]
    call_command("encryptsecrets")
    settings.PERFECT_ENCRYPTION_KEYS = [new]

    assert Run.objects.get(pk=run.pk).parameters == GIVEN
    assert Variable.objects.get().value == CANARY
    assert {row.parameters["key"] for row in Schedule.objects.all()} == {CANARY}


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    keys = env.encryption_keys_of(tmp_path, ())

    assert keys == env.encryption_keys_of(tmp_path, ()) and len(keys[0]) >= 50
    assert stat.S_IMODE((tmp_path / "encryption_key").stat().st_mode) == 0o600
    assert env.encryption_keys_of(tmp_path, ("given" * 8,)) == ["given" * 8, *keys]


def test_a_key_that_was_given_makes_no_file(tmp_path: Path) -> None:
    given = env.read({"PERFECT_HOME": str(tmp_path), "PERFECT_ENCRYPTION_KEY": f"{'n' * 40}, {'o' * 40}"})

    assert env.encryption_keys_of(tmp_path, given.encryption_keys) == ["n" * 40, "o" * 40]
    assert not (tmp_path / "encryption_key").exists()
    with pytest.raises(env.BadSetting, match="PERFECT_ENCRYPTION_KEY is too short"):
        env.read({"PERFECT_HOME": str(tmp_path), "PERFECT_ENCRYPTION_KEY": "short"})
    (tmp_path / "encryption_key").write_text("torn")
    with pytest.raises(env.BadSetting, match="Restore it from a backup"):
        env.encryption_keys_of(tmp_path, ())


def test_a_row_that_no_upgrade_reached_is_read_as_it_stands(vault: Flow) -> None:
    run = requests.trigger(flow=vault, now=NOW, trigger="api", who="ana")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_run SET parameters = %s", [json.dumps(GIVEN)])

    assert Run.objects.get(pk=run.pk).parameters == GIVEN


def test_a_flow_announced_again_keeps_its_schedules_secrets(worker: FakeWorker, vault: Flow) -> None:
    announce(specs=[SPEC], now=NOW)

    assert Schedule.objects.get(name="nightly").parameters == GIVEN
