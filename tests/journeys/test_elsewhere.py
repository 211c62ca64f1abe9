"""``triggerflow`` on a machine that is not the server's: it asks the server at PERFECT_URL, and keeps nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .house import ROOT, House


@pytest.fixture
def trigger(calm_house: House, tmp_path: Path):
    """Run ``triggerflow`` in a home of its own."""

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**calm_house.env, "PERFECT_HOME": str(tmp_path), "PERFECT_TOKEN": calm_house._token, **environ}
        env.pop("PERFECT_DATABASE_URL", None)  # the server's database is not to be reached from here
        command = [sys.executable, str(ROOT / "manage.py"), "triggerflow", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    yield run
    assert not list(tmp_path.glob("*.db*"))


def test_a_run_is_followed_to_its_end(calm_house: House, trigger) -> None:
    ended = trigger("Steady", "-p", "lines=2", "--follow")
    assert ended.returncode == 0, ended.stderr
    assert "ledger 1" in ended.stdout and "COMPLETED" in ended.stdout


def test_a_failed_run_is_told_and_resumed(calm_house: House, trigger) -> None:
    failed = trigger("raises", "--wait", "--json")
    assert (failed.returncode, json.loads(failed.stdout)["state"]) == (1, "FAILED"), failed.stderr

    resumed = trigger("--resume", json.loads(failed.stdout)["id"], "--wait", "--json")

    assert json.loads(resumed.stdout)["resume_of"] == json.loads(failed.stdout)["id"]


@pytest.mark.parametrize(
    ("words", "environ", "sentence"),
    [
        (["Stedy"], {}, "Did you mean"),
        (["Steady"], {"PERFECT_TOKEN": ""}, "PERFECT_TOKEN"),
        (["Steady"], {"PERFECT_URL": "http://127.0.0.1:9"}, "No server answers at http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(trigger, words, environ, sentence) -> None:
    ended = trigger(*words, **environ)
    assert ended.returncode == 4
    assert sentence in ended.stderr and "Traceback" not in ended.stderr
