"""A secret stands in nothing that a worker sends or keeps, wherever it comes from and whichever way it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker import secret_flows
from tests.worker.kit import eventually
from tests.worker.leaking import leaks_of, texts_in, unlike_words

FLOWS = Path(secret_flows.__file__)
CHARACTERS = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r")  # with \r a line begins anew
DRAWN = st.text(CHARACTERS, min_size=12, max_size=40).map(unlike_words).filter(lambda text: len(set(text)) > 8)
FIXED = {
    "default": secret_flows.IN_CODE,
    "import": secret_flows.AT_IMPORT,
    "configuration": secret_flows.CONFIGURED,
}


@pytest.fixture
def secretive(start_worker):
    return start_worker(targets=[FLOWS])


def leak(server, source, way, form, seed):
    """Run it; the secret, and all that the worker told of it."""
    more = {"given": seed} if source == "given" else {}
    attempt = server.offer("leaks", source=source, way=way, form=form, seed=seed.encode().hex(), **more)
    server.wait(lambda: attempt.end and (way in QUIET or told_the_way(attempt)))
    return FIXED.get(source, seed), attempt


QUIET = {"exit"}


def told_the_way(attempt):
    return any("way" in text for text in texts_in([f for f in everything(attempt) if f["type"] != "RunNamed"]))


def everything(attempt):
    return [fact for stream in attempt.streams.values() for fact in stream]


def nothing_leaks(server, worker, source, way, form, seed):
    secret, attempt = leak(server, source, way, form, seed)

    assert leaks_of(secret, everything(attempt)) == [], attempt.streams
    assert secret not in worker.said()


@pytest.mark.parametrize("way", secret_flows.WAYS)
def test_it_leaves_by_no_way(server, secretive, way):
    sources = list(secret_flows.SOURCES)
    for number, form in enumerate(("plain", "basic 1", "quote")):
        source = sources[(number + len(way)) % len(sources)]
        nothing_leaks(server, secretive, source, way, form, "m&de <in> th\u00e9 \"run\" + 'here' /")


@pytest.mark.parametrize("source", secret_flows.SOURCES)
def test_it_may_come_from_anywhere(server, secretive, source):
    for way in ("print", "descriptor 1", "subprocess stderr", "crash"):
        nothing_leaks(server, secretive, source, way, "plain", "t0ken-of-the-run")


def test_no_combination_lets_it_out(server, secretive):
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
        database=None,
    )
    @given(
        source=st.sampled_from(list(secret_flows.SOURCES)),
        way=st.sampled_from(list(secret_flows.WAYS)),
        form=st.sampled_from(list(secret_flows.FORMS)),
        seed=DRAWN,
    )
    def combined(source, way, form, seed):
        nothing_leaks(server, secretive, source, way, form, seed)

    combined()


@pytest.mark.parametrize("form", ["plain", "basic 2", "json"])
def test_the_parent_of_a_task_process_learns_what_it_made(server, secretive, form):
    secret = 'm&de <in> th\u00e9 "pool" + /'

    attempt, end = server.run("leaks_from_a_pool", seed=secret.encode().hex(), form=form)
    server.wait(lambda: any("way" in line for line in attempt.lines))

    assert end["outcome"] == "FAILED"
    assert leaks_of(secret, everything(attempt)) == []


def test_what_is_announced_holds_no_secret_of_the_code(server, secretive):
    server.wait(lambda: server.flows)

    for secret in (secret_flows.IN_CODE, secret_flows.AT_IMPORT, secret_flows.CONFIGURED):
        assert leaks_of(secret, [json.loads(json.dumps(flow, default=vars)) for flow in server.flows]) == []


def test_a_problem_at_import_holds_no_secret(server, start_worker, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from perfect_client import Secret\nkey = Secret('t0ken-at-import')\nraise ValueError(key.get())\n"
    )

    worker = start_worker(targets=[tmp_path / "bad.py"])

    server.wait(lambda: server.problems)
    assert "bad.py" in server.problems[0] and "t0ken" not in server.problems[0]
    assert "t0ken" not in worker.said()


def test_no_secret_waits_on_the_disk(server, secretive, tmp_path, monkeypatch):
    """The journal holds what the run was given, the kept sources what their files say; nothing else knows a secret."""
    monkeypatch.setattr(server, "_on_FactsRecorded", lambda connection, batch: None, raising=True)  # all of it waits
    server.offer("leaks", source="made", way="crash", form="plain", seed=b"t0ken-of-the-run".hex())
    eventually(lambda: any(b"ProcessExited" in path.read_bytes() for path in tmp_path.rglob("*.facts")))

    for path in tmp_path.rglob("*"):
        assert path.parent.name == "code" or not path.is_file() or b"t0ken-of" not in path.read_bytes(), path


def test_no_secret_is_printed_faster_than_it_is_known(server, secretive):
    attempt, _ = server.run("leaks_many", count=1500)
    server.wait(lambda: len(attempt.lines) >= 1500)

    assert set(attempt.lines) == {"way ***"}


def test_the_reason_of_an_end_holds_none(server, start_worker):
    start_worker("--grace", "0.3", targets=[FLOWS])

    attempt, end = server.run("leaks_by_its_end")

    assert end["type"] == "ProcessExited" and end["timed_out"] and "hangs with ***" in end["reason"]
    assert leaks_of(secret_flows.AT_IMPORT, everything(attempt)) == []
