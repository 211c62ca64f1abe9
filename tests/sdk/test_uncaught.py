"""An error that nobody caught shows the user's own code first: run by itself, in facts, and in pytest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.terminals import piped

CODE = """\
import asyncio
from perfect_client import flow, task

@task
def plain(n):
    raise ValueError("no good %d" % n)

@task(retries=1)
def again(n):
    raise LookupError("nor this") from KeyError("cause")

@flow(name="Nightly load")
def nightly(which):
    if which == "plain":
        plain(3)
    if which == "again":
        again.submit(4).result()
    if which == "flow":
        raise RuntimeError("of the flow")

@flow
async def later():
    plain(5)
"""


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def run(code: str, *options: str, **environment: str) -> str:
        path = tmp_path / "own.py"
        path.write_text(CODE + code, encoding="utf-8")
        return piped(*options, str(path), **{"PERFECT_CONSOLE": "0", **environment})[1].replace(str(path), "own.py")

    return run


def frames_of(told: str) -> Any:
    return re.findall(r'File "(.+)", line (\d+)', told)


def test_the_task_and_its_line_come_first_and_our_frames_not_at_all(run: Any) -> None:
    told = run('nightly("plain")')

    assert told.startswith("Flow 'Nightly load' failed in task 'plain' at own.py:6\n\nTraceback")
    assert frames_of(told) == [("own.py", "24"), ("own.py", "15"), ("own.py", "6")]
    assert "\nValueError: no good 3\n" in told
    assert re.search(r"\(\d+ frames of perfect_client not shown; PERFECT_TRACEBACK=full shows them\)\n$", told)


def test_a_submitted_task_and_a_linked_error(run: Any) -> None:
    told = run('nightly("again")')

    assert "Flow 'Nightly load' failed in task 'again' at own.py:10\n" in told
    assert [line for file, line in frames_of(told) if file == "own.py"] == ["24", "17", "10"]
    assert "perfect_client" not in told[: told.index("frames of perfect_client")]
    assert "KeyError: 'cause'" in told and "LookupError: nor this" in told


def test_an_error_of_the_flow_itself_and_of_an_asynchronous_one(run: Any) -> None:
    assert run('nightly("flow")').startswith("Flow 'Nightly load' failed at own.py:19\n")
    assert run("asyncio.run(later())").startswith("Flow 'later' failed in task 'plain' at own.py:6\n")


@pytest.mark.parametrize(("options", "environment"), [(["-X", "dev"], {}), ([], {"PERFECT_TRACEBACK": "full"})])
def test_every_frame_can_be_seen(run: Any, options: Any, environment: Any) -> None:
    told = run('nightly("plain")', *options, **environment)

    assert told.startswith("Traceback")
    assert any("perfect_client" in file for file, _ in frames_of(told))


def test_a_program_with_a_hook_of_its_own_keeps_it(run: Any) -> None:
    told = run("import sys\nsys.excepthook = lambda *error: print('mine', file=sys.stderr)\nnightly('plain')")

    assert told == "mine\n"


def test_errors_that_have_nothing_to_do_with_flows_look_as_ever(run: Any) -> None:
    told = run("nightly('')\nint('x')")

    assert told.startswith("Traceback") and "ValueError: invalid literal" in told and "not shown" not in told


def test_a_stop_is_one_line(run: Any) -> None:
    told = run("@flow\ndef stopped(): raise KeyboardInterrupt\nstopped()")

    assert told == "Flow 'stopped' was stopped.\n"


def test_pytest_shows_no_frame_of_ours(tmp_path: Path) -> None:
    test = tmp_path / "test_own.py"
    test.write_text(CODE + "def test_it():\n    nightly('plain')\ndef test_more():\n    nightly('again')\n")

    out, _, code = piped("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", str(test))

    assert code == 1
    assert "no good 3" in out and "nor this" in out and "perfect_client/" not in out
