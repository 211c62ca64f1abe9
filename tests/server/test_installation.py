"""What a home must be before it is used: prepared by whoever comes first, whole, and served once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from perfect_site import env
from perfect_site.server import installation, local
from runs.access import Token

from .test_serving import ROOT, Home


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which two commands came first, at the same moment."""
    home = Home(tmp_path_factory.mktemp("used"))
    words = home.command("createtoken", "ci", "--scope", "run")
    both = [subprocess.Popen(words, env=home.env, cwd=ROOT, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert all(out.split()[-1].startswith("pft_") for out, _ in ended)
    return home


def test_whatever_command_comes_first_prepares_the_home(used: Home) -> None:
    assert "/welcome/?t=" in used.run("loginurl").stdout


def test_a_home_is_served_once(used: Home) -> None:
    with used.serving() as (process, port):
        second = used.run("serve", "--port", "0")
        assert used.run("createtoken", "ci", "--scope", "run").returncode == 0
        assert process.poll() is None
    assert second.returncode == 1
    assert f"is served already, by process {process.pid} at http://127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_database_that_is_gone_is_not_replaced_unasked(used: Home) -> None:
    file = used.path / "flows.db"
    kept = [(path, path.read_bytes()) for path in used.path.glob("flows.db*")]
    for path, _ in kept:
        path.unlink()

    for words in (["serve", "--port", "0"], ["createtoken", "ci", "--scope", "run"]):
        refused = used.run(*words)
        assert refused.returncode == 1
        assert "is gone" in refused.stderr and "serve --new" in refused.stderr, words
        assert not file.exists()
    file.touch()  # as a command that looks no closer may leave it
    assert "is gone" in used.run("serve", "--port", "0").stderr

    with used.serving("--new"):
        assert file.stat().st_size > 0
    for path, content in kept:
        path.write_bytes(content)


def test_a_damaged_database_is_told_with_what_to_do(used: Home) -> None:
    file = used.path / "flows.db"
    content = file.read_bytes()
    file.write_bytes(b"no database at all" * 1000)

    refused = used.run("serve", "--port", "0")

    file.write_bytes(content)
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr and "backup" in refused.stderr and "Traceback" not in refused.stderr


def test_a_run_is_not_triggered_where_there_is_no_database(tmp_path: Path) -> None:
    refused = Home(tmp_path).run("triggerflow", "x")
    assert refused.returncode == 4
    assert "manage.py serve" in refused.stderr
    assert not (tmp_path / "flows.db").exists()


def test_the_driver_for_postgresql_is_named_with_its_command(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(env, "find_spec", lambda name: None)
    with pytest.raises(env.BadSetting, match="pip install -r requirements-postgres.txt"):
        env.database_of("postgres://x/y", tmp_path)


def test_each_home_has_a_token_of_its_own_and_revokes_no_others(tmp_path: Path, db: Any) -> None:
    homes = [tmp_path / name for name in "ab"]
    for home in [*homes, *homes]:
        home.mkdir(exist_ok=True)
        local.ensure_worker_token(home, timezone.now())
    secrets = [(home / "worker-token").read_text().strip() for home in homes]
    assert all(Token.objects.valid(secret, timezone.now()) for secret in secrets)

    (homes[0] / "worker-token").unlink()
    local.ensure_worker_token(homes[0], timezone.now())

    assert not Token.objects.valid(secrets[0], timezone.now())  # nobody has it any more
    assert Token.objects.valid(secrets[1], timezone.now())


def test_a_home_keeps_its_identity(tmp_path: Path) -> None:
    assert installation.identity(tmp_path) == installation.identity(tmp_path) != ""
