"""The environment: what is read, what is refused and in which words."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.db import connection

from perfect_site import checks, env
from perfect_site.env import BadSetting

from .conftest import only_on


def read(tmp_path: Path, **environ: str) -> env.Env:
    return env.read({"PERFECT_HOME": str(tmp_path), **environ})


def test_the_defaults_are_one_machine_and_one_file(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.database["NAME"] == str(tmp_path / "flows.db")
    assert found.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert (found.debug, found.https, found.log_level, found.retention_days) == (False, False, "INFO", 30)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("DATABASE_URL", "mysql://x/y", "postgres://"),
        ("DATABASE_URL", "flows.db", "sqlite:////"),
        ("DATABASE_URL", "sqlite://", "sqlite:////"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all.db", "does not exist"),
        ("DATABASE_URL", "postgres://u:p@h", "names no database"),
        ("DATABASE_URL", "postgres://u:p@h:99999/n", "port"),
        ("DATABASE_URL", "postgres://[x/n", "not an address"),
        ("URL", "perfect.example.org", "http://"),
        ("URL", "https://x.org/perfect", "no path"),
        ("ALLOWED_HOSTS", "https://x.org", "names and addresses"),
        ("DEBUG", "maybe", "1 or 0"),
        ("RETENTION_DAYS", "soon", "number of days"),
        ("RETENTION_DAYS", "-1", "number of days"),
        ("RETENTION_DAYS", "nan", "number of days"),
        ("LOG_LEVEL", "LOUD", "WARNING"),
        ("SECRET_KEY", "short", "32"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence(tmp_path: Path, name: str, value: str, word: str) -> None:
    with pytest.raises(BadSetting, match=word) as refusal:
        read(tmp_path, **{f"PERFECT_{name}": value})
    assert f"PERFECT_{name}" in str(refusal.value)


def test_an_absolute_path_takes_four_slashes_and_a_relative_one_starts_at_home(tmp_path: Path) -> None:
    assert read(tmp_path, PERFECT_DATABASE_URL=f"sqlite:///{tmp_path}/a.db").database["NAME"] == f"{tmp_path}/a.db"
    assert read(tmp_path, PERFECT_DATABASE_URL="sqlite:///b.db").database["NAME"] == f"{tmp_path}/b.db"


def test_a_postgres_address_is_taken_apart(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = "postgres://ana:p%40ss@db.example.org:6432/flows?sslmode=require"
    found = read(tmp_path, PERFECT_DATABASE_URL=url).database
    assert [found[key] for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")] == [
        "ana",
        "p@ss",
        "db.example.org",
        6432,
        "flows",
    ]
    assert found["OPTIONS"]["sslmode"] == "require"


def test_the_public_address_is_an_allowed_host(tmp_path: Path) -> None:
    found = read(tmp_path, PERFECT_URL="https://perfect.example.org/")
    assert found.https and "perfect.example.org" in found.allowed_hosts
    assert found.url == "https://perfect.example.org"


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    (sentence,) = env.unknown(
        {"PERFECT_DATABSE_URL": "x", "PERFECT_HOME": "y", "PATH": "z", "PERFECT__RUNTIME__FLOW_RUN__NAME": "of a test"}
    )
    assert sentence == "PERFECT_DATABSE_URL is not a setting of Perfect. Did you mean PERFECT_DATABASE_URL?"


def test_a_setting_of_the_past_is_told() -> None:
    (sentence,) = env.unknown({"PERFECT_REDIS_URL": "redis://x"})
    assert sentence == "PERFECT_REDIS_URL is not used: several servers need nothing but PostgreSQL."


def test_the_other_products_name_is_told() -> None:
    assert "PERFECT_URL" in env.unknown({"PREFECT_API_URL": "x"})[0]


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = env.secret_key_of(tmp_path)
    assert key == env.secret_key_of(tmp_path) and len(key) >= 50
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600


def test_a_broken_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("x")
    with pytest.raises(BadSetting, match="Remove it"):
        env.secret_key_of(tmp_path)


def test_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    env.make_home(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(BadSetting, match="cannot be created"):
        env.make_home(tmp_path / "file" / "home")


def test_sqlite_is_set_up_as_its_traps_demand(db: None) -> None:
    only_on("SQLite")
    pragmas: dict[str, Any] = {}
    with connection.cursor() as cursor:
        for name in ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint", "busy_timeout"):
            cursor.execute(f"PRAGMA {name}")
            pragmas[name] = cursor.fetchone()[0]
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "wal_autocheckpoint": 0,
        "busy_timeout": 20_000,
    }
    database = settings.DATABASES["default"]
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database["CONN_MAX_AGE"] == 0 and not database["ATOMIC_REQUESTS"]


def test_the_checks_are_clean(db: None) -> None:
    found = run_checks(include_deployment_checks=True)
    assert [message for message in found if message.level > 20 and not message.is_silenced()] == []


def test_an_open_address_without_tls_is_told(settings: Any) -> None:
    settings.PERFECT_URL = "http://perfect.example.org"
    assert [message.id for message in checks.transport()] == ["perfect.W002"]
    settings.PERFECT_URL = "https://perfect.example.org"
    assert checks.transport() == []
