"""Options and environment: what cannot work is refused with a sentence, what is odd is a warning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from perfect_client import cli
from perfect_client.system.loop import Loop
from perfect_client.worker import main as worker

from tests.worker.kit import FLOWS, SDK


def environment(tmp_path, **values):
    return {"PERFECT_HOME": str(tmp_path), "PERFECT_TOKEN": "t0ken", **values}


def test_what_is_not_said_has_a_sensible_value(tmp_path):
    setup = worker.configure([str(FLOWS)], environ=environment(tmp_path))

    assert setup.url == "http://127.0.0.1:8700"
    assert setup.slots >= 2
    assert setup.folder.path == tmp_path / "worker" / setup.name
    assert setup.folder.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "a/b"}, "--name takes"),
        ({"name": ".."}, "--name takes"),
        ({"slots": 0}, "--slots takes a number from 1"),
        ({"url": "ftp://host"}, "ftp"),
        ({"targets": ["nowhere.py"]}, "there is no file or folder nowhere.py"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(tmp_path, options, sentence):
    targets = options.pop("targets", [str(FLOWS)])

    with pytest.raises(worker.Unusable, match=sentence):
        worker.configure(targets, environ=environment(tmp_path), **options)


def test_a_missing_token_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(worker.Unusable, match="createtoken"):
        worker.configure([str(FLOWS)], environ={"PERFECT_HOME": str(tmp_path)})


def test_an_unknown_setting_is_a_warning_with_the_nearest_name():
    assert worker.warnings_about({"PERFECT_TOKN": "x"}) == [
        "PERFECT_TOKN is not a setting of Perfect; did you mean PERFECT_TOKEN?"
    ]


def test_a_setting_of_another_orchestrator_is_noticed():
    (sentence,) = worker.warnings_about({"PREFECT_API_URL": "http://elsewhere"})

    assert "PERFECT_URL" in sentence


def test_a_refusal_is_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PERFECT_TOKEN", raising=False)

    assert cli.main(["worker", str(FLOWS)]) == 2
    assert "there is no token" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["email", "queue", "logging", "json", "socket"])
def test_a_file_named_like_a_module_of_python_shadows_nothing(tmp_path, server, name):
    (tmp_path / (name + ".py")).write_text("raise ImportError('this is the user's')\n")
    (tmp_path / "mine.py").write_text("from perfect_client import flow\n\n@flow\ndef answer():\n    return 7\n")
    command = [sys.executable, "-m", "perfect_client", "worker", ".", "--url", server.url]
    environ = dict(os.environ, **environment(tmp_path), PYTHONPATH=str(SDK))

    with subprocess.Popen(command, env=environ, cwd=str(tmp_path)) as process:
        try:
            assert server.run("answer")[1]["result"] == "7"
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_flow_file_that_calls_serve_becomes_a_worker(server, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from perfect_client import flow, serve\n\n@flow\ndef answer():\n    return 7\n\n"
        "if __name__ == '__main__':\n    serve(name='mine', slots=2)\n"
    )
    environ = dict(os.environ, **environment(tmp_path), PERFECT_URL=server.url, PYTHONPATH=str(SDK))

    with subprocess.Popen([sys.executable, str(tmp_path / "mine.py")], env=environ) as process:
        try:
            assert server.run("answer")[1]["result"] == "7"
            assert (server.joined[0].name, server.joined[0].slots) == ("mine", 2)
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_fault_in_a_callback_is_told_and_not_the_end_of_the_loop():
    told = []
    loop = Loop(told.append)
    loop.after(0, lambda: 1 / 0)
    loop.after(0, lambda: told.append("next"))

    loop.turn()

    assert isinstance(told[0], ZeroDivisionError)
    assert told[1] == "next"
    loop.close()


def test_a_callback_that_only_fails_neither_ends_the_loop_nor_makes_it_spin():
    errors, out, into = [], *os.pipe()
    loop = Loop(errors.append)
    loop.on_read(out, lambda: 1 / 0)  # and reads nothing, so it stays readable
    os.write(into, b"x")
    begun = time.monotonic()

    for _ in range(8):
        loop.turn()

    assert len(errors) == 8 and time.monotonic() - begun > 0.5  # seconds: the pauses grow
    loop.forget(out)
    loop.close()
    os.close(out)
    os.close(into)


def test_a_signal_is_heard_although_the_handler_of_another_failed():
    told = []
    loop = Loop(told.append)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    loop.listen({signal.SIGUSR1: lambda: 1 / 0, signal.SIGUSR2: lambda: told.append("usr2")})
    try:
        for number in handlers:
            os.kill(os.getpid(), number)
        loop.turn()
    finally:
        loop.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)

    assert sorted(map(type, told), key=str) == [ZeroDivisionError, str]
