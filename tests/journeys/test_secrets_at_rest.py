"""A backup tells no secret: given by every door to a real server and worker, it is in no byte that the server wrote."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows import sealing

from .house import ROOT, House, opened, until

pytestmark = pytest.mark.sqlite  # it reads the bytes of the file

CANARY = "canary" + "Zq9x" * 5
DOORS = (
    "api",
    "named",
    "bulk-0",
    "bulk-1",
    "default",
    "named-default",
    "config",
    "fire",
    "shell",
    "variable",
    "pin",
)
FLOWS = ROOT / "tests" / "journeys" / "flows" / "secret_flows.py"


def found_in(home: Path) -> list[str]:
    """The files of the server, a backup of its database among them, in whose bytes the secret stands."""
    with closing(sqlite3.connect(home / "flows.db")) as database:
        database.execute("VACUUM INTO ?", [str(home / "flows.db-backup")])
    files = [*home.glob("flows.db*"), home / "server.log"]
    assert len(files) >= 3
    return [file.name for file in files if CANARY.encode() in file.read_bytes()]


def test_no_byte_of_the_server_tells_a_secret_and_the_flow_gets_it(tmp_path: Path) -> None:
    with opened(tmp_path, worker=False) as house:
        house.env["CANARY"] = CANARY
        house.start_worker(FLOWS)
        house.ready("keeper")
        runs = everything_that_can_be_asked(house)
        assert {house.wait(run_id)["state"] for run_id in runs} == {"COMPLETED", "FAILED"}
        until(lambda: all(f"{CANARY}-{door}" in told(house) for door in ("fire", "shell")), what="the other doors")
        copies = [path.read_bytes() for path in tmp_path.glob("flows.db*")]  # as they are while the server runs
        house.stop()

        assert not any(CANARY.encode() in copy for copy in copies)
        assert found_in(tmp_path) == []
        for door in DOORS:
            assert f"{CANARY}-{door}" in told(house), door
        assert {"token": f"{CANARY}-nested"} in told(house)


def told(house: House) -> list[object]:
    return [value for entry in house.told() for value in entry.values()]


def everything_that_can_be_asked(house: House) -> list[str]:
    given = {"key": f"{CANARY}-api", "db_password": f"{CANARY}-named", "login": {"token": f"{CANARY}-nested"}}
    runs = [house.trigger("keeper", parameters=given, idempotency_key="once"), house.trigger("keeper")]
    runs.append(house.trigger("keeper", parameters={**given, "fails": True}, configuration="live"))
    runs.append(house.trigger("keeper", configuration="live"))
    items = [{"flow": "keeper", "parameters": {"key": f"{CANARY}-bulk-{number}"}} for number in range(2)]
    status, answer = house.request("POST", "/api/runs", {"items": items})
    assert status == 201, answer
    runs += [run["id"] for run in answer["items"]]
    wish = {
        "flow": "keeper",
        "name": "soon",
        "kind": "interval",
        "expression": "1",
        "parameters": {"key": f"{CANARY}-fire"},
    }
    status, answer = house.request("POST", "/api/schedules", wish)
    assert status == 201, answer
    house.manage("triggerflow", "Keeper", "-p", f"key={CANARY}-shell", check=True)
    asker = house.trigger("asker")
    house.wait(asker, "PAUSED")
    status, answer = house.request("POST", f"/api/runs/{asker}/resume", {"input": {"pin": f"{CANARY}-pin"}})
    assert status == 200, answer
    house.wait(runs[0])
    status, answer = house.request("POST", f"/api/runs/{runs[0]}/retry", {})
    assert status == 201, answer
    return [*runs, answer["id"], asker]


def test_an_upgrade_leaves_no_byte_of_what_was_not_encrypted_before(tmp_path: Path, settings: Any) -> None:
    house = House(tmp_path, prepared=False)
    house.manage("migrate", "runs", "0011", check=True)
    given = {"key": CANARY, "login": {"token": CANARY}, "count": 3}
    schema = {"properties": {"key": {"writeOnly": True, "type": "string"}, "db_password": {"default": CANARY}}}
    at = "2026-01-01 00:00:00"
    with closing(sqlite3.connect(house.database)) as database, database:
        fill(
            database,
            "flows_flow",
            [
                {
                    "id": 1,
                    "name": "Old",
                    "slug": "old",
                    "parameters": json.dumps(schema),
                    "created_at": at,
                    "updated_at": at,
                    "configurations": json.dumps({"live": {"db_password": CANARY}}),
                }
            ],
        )
        fill(database, "flows_schedule", [{"flow_id": 1, "name": "nightly", "parameters": json.dumps(given)}])
        fill(database, "runs_variable", [{"name": "api_key", "value": json.dumps(CANARY), "changed_at": at}])
        fill(
            database,
            "runs_run",
            [
                {
                    "id": f"{number:032x}",
                    "flow_id": 1,
                    "state": "PENDING",
                    "created_at": at,
                    "parameters": json.dumps({**given, "count": number}),
                }
                for number in range(1_200)
            ],
        )

    house.start_server()
    house.stop()

    assert found_in(tmp_path) == []
    settings.PERFECT_ENCRYPTION_KEYS = [(tmp_path / "encryption_key").read_text()]
    with closing(sqlite3.connect(house.database)) as database:
        kept = database.execute("SELECT parameters FROM runs_run UNION ALL SELECT parameters FROM flows_schedule")
        read = [sealing.unseal(json.loads(text)) for (text,) in kept]
    assert read == [{**given, "count": number} for number in range(1_200)] + [given]


def fill(database: sqlite3.Connection, table: str, rows: list[dict[str, object]]) -> None:
    """Insert the rows; a column that must have a value and is not named gets an empty one of its type."""
    columns = database.execute(f"PRAGMA table_info({table})").fetchall()
    empty = {
        name: 0 if re.match("int|bool|real|big", kind.lower()) else "{}" if name in JSON else ""
        for _, name, kind, must, _, key in columns
        if must and not key
    }
    for row in rows:
        whole = {**empty, **row}
        marks = ", ".join("?" * len(whole))
        database.execute(f"INSERT INTO {table} ({', '.join(whole)}) VALUES ({marks})", list(whole.values()))


JSON = {"tags", "parameters", "configurations"}
