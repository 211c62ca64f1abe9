"""The commands of the shell: what they print, where they write, with which code they end."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from flows.models import Flow
from perfect_site.management import following
from perfect_site.server import local
from perfect_site.server.process import Server
from runs.access import Token
from runs.models import LogLine, Run
from runs.rules.states import RunState
from runs.services import requests
from runs.services.closing import close


class Ended:
    def __init__(self) -> None:
        self.code, self.out, self.err = 0, io.StringIO(), io.StringIO()


def command(*words: str, **options: Any) -> Ended:
    ended = Ended()
    try:
        call_command(*words, stdout=ended.out, stderr=ended.err, no_color=True, **options)
    except SystemExit as end:
        ended.code = int(end.code or 0)
    return ended


def test_createtoken_prints_the_token_alone_on_the_last_line(db: None) -> None:
    lines = command("createtoken", "ci", "--scope", "run", "--expires", "7").out.getvalue().splitlines()

    token = Token.objects.valid(lines[-1], timezone.now())
    assert token is not None and (token.name, token.scope) == ("ci", "run")
    assert token.expires_at is not None


@pytest.mark.parametrize(
    "words", [["", "--scope", "run"], ["x", "--scope", "run", "--expires", "-1"], ["x", "--scope", "all"]]
)
def test_createtoken_refuses_what_cannot_be(db: None, words: list[str]) -> None:
    with pytest.raises(CommandError):
        command("createtoken", *words)
    assert not Token.objects.exists()


def test_loginurl_prints_a_link_that_works(db: None, client: Client) -> None:
    url = command("loginurl").out.getvalue().strip()
    assert url.startswith("http://127.0.0.1:8700/welcome/?t=")
    assert client.post("/welcome/", {"t": url.partition("=")[2]}).status_code == 302


def test_loginurl_is_for_active_people(db: None) -> None:
    with pytest.raises(CommandError, match="no active user 'eve'"):
        command("loginurl", "--user", "eve")


@pytest.mark.parametrize("name", ["Daily Sales ETL", "daily-sales-etl"])
def test_triggerflow_queues_a_run_by_name_or_slug(flow: Flow, name: str) -> None:
    ended = command("triggerflow", name, "-p", "limit=3", "-p", "path=a b", "--config", "release")

    run = Run.objects.get()
    assert (ended.code, run.parameters, run.configuration) == (0, {"limit": 3, "path": "a b"}, "release")
    assert run.trigger == "shell"
    assert str(run.pk) in ended.out.getvalue()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Daily Sales ET"], "Did you mean 'Daily Sales ETL'?"),
        (["Daily Sales ETL", "-p", "limit=x"], "a whole number"),
        (["Daily Sales ETL", "-p", "limit"], "KEY=JSON"),
        (["Daily Sales ETL", "--at", "noon"], "--at takes a time"),
        (["Daily Sales ETL", "--at", "2026-13-01"], "--at takes a time"),
        (["Daily Sales ETL", "--config", "prod"], "no configuration"),
    ],
)
def test_triggerflow_refuses_with_a_sentence_and_4(flow: Flow, words: list[str], sentence: str) -> None:
    ended = command("triggerflow", *words)
    assert ended.code == 4
    assert sentence in ended.err.getvalue()
    assert not Run.objects.exists()


def test_triggerflow_says_if_no_flow_is_known(db: None) -> None:
    assert "No worker has announced" in command("triggerflow", "x").err.getvalue()


def test_triggerflow_waits_for_its_time(flow: Flow) -> None:
    command("triggerflow", flow.name, "--at", "2126-01-01T00:00+01:00")
    assert Run.objects.get().state == "SCHEDULED"


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunState], None]]:
    """The run that is followed prints a line and ends so, while the command pauses between two looks."""

    def end_with(state: RunState) -> None:
        def pause(seconds: float) -> None:
            run, now = Run.objects.get(), timezone.now()
            if run.is_final:
                return
            LogLine.objects.create(run=run, seq=1, attempt=1, time=now, level=20, message="half way")
            Run.objects.filter(pk=run.pk).move(RunState.OFFERED, now=now, who="t")
            Run.objects.filter(pk=run.pk).move(RunState.RUNNING, now=now, who="t", started_at=now)
            error = "ValueError: x" if state == "FAILED" else ""
            close(Run.objects.get(), state, now=now, who="t", why="", error=error)

        monkeypatch.setattr(following.moments, "__kwdefaults__", {"every": 0.0, "pause": pause})

    yield end_with


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("FAILED", 1), ("CRASHED", 1), ("CANCELLED", 3)])
def test_following_shows_the_log_and_ends_as_the_run(
    flow: Flow, ending: Callable[[RunState], None], state: str, code: int
) -> None:
    ending(RunState(state))
    ended = command("triggerflow", flow.name, "--follow")

    assert ended.code == code
    assert "half way" in ended.out.getvalue()
    assert state in ended.out.getvalue()


def test_waiting_shows_no_log(flow: Flow, ending: Callable[[RunState], None]) -> None:
    ending(RunState.FAILED)
    ended = command("triggerflow", flow.name, "--wait")
    assert ended.code == 1
    assert "half way" not in ended.out.getvalue() and "ValueError: x" in ended.out.getvalue()


def test_json_is_one_document(flow: Flow, ending: Callable[[RunState], None]) -> None:
    ending(RunState.COMPLETED)
    ended = command("triggerflow", flow.name, "--wait", "--json")
    assert json.loads(ended.out.getvalue())["state"] == "COMPLETED"


def test_ctrl_c_leaves_the_run_alone(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.moments, "__kwdefaults__", {"every": 0.0, "pause": interrupt})
    ended = command("triggerflow", flow.name, "--follow")

    assert ended.code == 130
    assert "The run goes on" in ended.err.getvalue()
    assert Run.objects.get().state == "PENDING"


def test_the_progress_line_tells_why_a_run_waits(flow: Flow) -> None:
    run = requests.trigger(flow=flow, now=timezone.now(), trigger="shell", who="ana")
    moment, _ = next(following.moments(str(run.pk), log=False))
    assert following.bar_text(moment).startswith("◷ Pending ░░░")
    assert moment["state_reason"] in following.bar_text(moment)


def test_the_workers_token_is_written_once_for_its_owner_alone(tmp_path: Path, db: None) -> None:
    local.ensure_worker_token(tmp_path, timezone.now())
    path = tmp_path / "worker-token"
    secret = path.read_text()
    local.ensure_worker_token(tmp_path, timezone.now())

    assert path.read_text() == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Token.objects.get().scope == "worker"


def test_the_workers_token_is_made_anew_when_its_row_is_gone(tmp_path: Path, db: None) -> None:
    local.ensure_worker_token(tmp_path, timezone.now())
    Token.objects.all().delete()
    local.ensure_worker_token(tmp_path, timezone.now())
    assert Token.objects.valid((tmp_path / "worker-token").read_text().strip(), timezone.now())


def test_the_server_of_a_home_is_found_while_it_lives(tmp_path: Path) -> None:
    assert local.server_url(tmp_path, "") == "http://127.0.0.1:8700"
    local.announce_server(tmp_path, "http://127.0.0.1:9999")
    assert local.server_url(tmp_path, "") == "http://127.0.0.1:9999"
    assert local.server_url(tmp_path, "https://x.org") == "https://x.org"

    (tmp_path / "server.json").write_text('{"pid": 4194305, "url": "x"}')
    assert local.running_server(tmp_path) is None


DIES_TWICE = """
import os, pathlib, subprocess, sys, time
home = pathlib.Path(os.environ["PERFECT_HOME"])
(home / f"start-{os.getpid()}").touch()
if len(list(home.glob("start-*"))) < 3:
    sys.exit(1)
child = subprocess.Popen(["sleep", "60"])
(home / "draft").write_text(str(child.pid))
(home / "draft").rename(home / "child")
time.sleep(60)
"""


def test_a_local_worker_that_dies_is_started_again_and_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BACKOFF", (0.01,))
    workers = local.LocalWorkers(["x"], home=tmp_path, url="http://127.0.0.1:1")
    workers._command = [sys.executable, "-c", DIES_TWICE]

    async def live() -> None:
        workers.start()
        deadline = time.monotonic() + 20
        while not (tmp_path / "child").exists() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await workers.stop()

    asyncio.run(live())

    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    deadline = time.monotonic() + 5
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_serve_refuses_other_machines_without_a_password(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "run", lambda self: pytest.fail("it listened"))
    with pytest.raises(CommandError, match="manage.py changepassword admin"):
        command("serve", "--host", "0.0.0.0", "--port", "0")


def test_serve_refuses_other_machines_while_debugging(make_user: Any, settings: Any) -> None:
    make_user("admin")
    settings.DEBUG = True
    with pytest.raises(CommandError, match="PERFECT_DEBUG"):
        command("serve", "--host", "0.0.0.0", "--port", "0")


def test_serve_refuses_a_host_that_is_not_here(db: None) -> None:
    with pytest.raises(CommandError, match="not an address"):
        command("serve", "--host", "nowhere.invalid", "--port", "0")
