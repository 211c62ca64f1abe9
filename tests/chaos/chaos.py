"""One chaos run: install, break, heal, wait for the end of all runs, and hold what is there against what was done."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.journeys.checker import Row, faults, rows
from tests.journeys.house import House

from . import verdict
from .clients import Client
from .installation import Installation, installed, is_run
from .ledger import Deeds
from .monkey import Monkey, possible
from .plan import KINDS, plan
from .sizes import size_of

HEAL_S = 180.0  # from the last fault undone until all is up
STILL_S = 90.0  # from then on something must happen within so long, until every run is final
EMPTY_S = 60.0  # from then until nothing of a run is left on a worker
PERIOD_S = 15
UP_S = 60.0
RUNS = "SELECT r.*, w.name AS worker_name FROM runs_run r LEFT JOIN runs_worker w ON w.id = r.worker_id"
LIVE = (
    "SELECT (SELECT count(*) FROM runs_run WHERE finished_at IS NULL) AS live,"
    " (SELECT max(id) FROM runs_event) AS event"
)
RAW = (
    "SELECT run_id AS run, message, dropped FROM runs_logline"
    " WHERE message LIKE 'raw %' OR (message LIKE '% of output %' AND dropped > 0) ORDER BY run_id, seq"
)


def unleash(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    postgres: bool = False,
    rate: float = 2.5,
    only: Collection[str] = KINDS,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Break an installation for so long, heal it, and return everything that is wrong then, a sentence each."""
    servers, workers = (2, 2) if postgres else (1, 2)
    with installed(folder, servers=servers, workers=workers, postgres=postgres, runs=round(rate * seconds)) as made:
        deeds = Deeds()
        reasons = possible(made)
        for kind, reason in reasons.items():
            if kind in only and reason:
                say(f"without: {kind} ({reason})")
        could = [kind for kind, reason in reasons.items() if kind in only and not reason]
        quiet = Monkey(made, deeds, [], say)
        house = made.caller()
        quiet.run(_within(UP_S, lambda: _up(made, house)))
        _schedule(made, house)
        clients = [Client(made, deeds, seed=f"{seed}-{n}", rate=rate / 2) for n in range(2)]
        for client in clients:
            client.start()
        begun = time.monotonic()
        monkey = Monkey(made, deeds, plan(seed, seconds, servers=servers, workers=workers, possible=could), say)
        monkey.run(lambda: time.monotonic() - begun > seconds)
        say(f"{seconds:9.1f} s  heal")
        monkey.heal()
        found = _settle(made, monkey, house, clients, say)
        for client in clients:
            client.give_up()
        unanswered = sum(client.unanswered for client in clients)
        found += _living_faults(made, monkey, house)
        listed = _listed(made, house)
        found += [sentence for service in reversed(made.services) if (sentence := service.end())]
        found += [f"process {pid} is left: {_command(pid)}" for pid in made.marked()]
        found += deeds.wrong
        return found + _kept_faults(made, deeds, unanswered, listed, say)


# ------------------------------------------------------------------------------------------------------------- watching


def _within(seconds: float, look: Callable[[], bool]) -> Callable[[], bool]:
    """True once that is true, or the time is over."""
    end = time.monotonic() + seconds
    return lambda: look() or time.monotonic() > end


def _while_it_moves(seconds: float, look: Callable[[], tuple[bool, object]]) -> Callable[[], bool]:
    """True once ``look`` says so, or what it sees has not changed for so long: a slow machine has its time."""
    seen, end = [object()], [0.0]

    def over() -> bool:
        done, now_seen = look()
        if now_seen != seen[0]:
            seen[0], end[0] = now_seen, time.monotonic() + seconds
        return done or time.monotonic() > end[0]

    return over


def _get(made: Installation, house: House, path: str) -> Any:
    """The answer, or None if there was none or another than 200."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, answer = made.ask(house, "GET", path)
        return answer if status == 200 else None


def _up(made: Installation, house: House) -> bool:
    """Every server is ready, every worker connected, and the flows are known."""
    for port in made.ports:
        direct = made.caller(port)
        ready = _get(made, direct, "/readyz") is not None
        direct.stop()
        if not ready:
            return False
    workers = (_get(made, house, "/api/workers") or {"items": []})["items"]
    there = {worker["name"] for worker in workers if worker["connected"]}
    return there >= {worker.name for worker in made.workers} and _get(made, house, "/api/flows/tick") is not None


def _schedule(made: Installation, house: House) -> None:
    wish = {"flow": "tick", "name": "chaos", "kind": "interval", "expression": str(PERIOD_S)}
    status, answer = made.ask(house, "POST", "/api/schedules", wish | {"catch_up": "all", "overlap": "allow"})
    assert status == 201, (status, answer)


def _settle(
    made: Installation, monkey: Monkey, house: House, clients: list[Client], say: Callable[[str], None]
) -> list[str]:
    """Wait until all is up, all keys are answered, no schedule fires any more, and every run is final."""
    begun = time.monotonic()
    monkey.run(_within(HEAL_S, lambda: _up(made, house)))
    if not _up(made, house):
        return [f"not everything is up {HEAL_S:g} s after the healing: {_get(made, house, '/api/workers')}"]
    say(f"all is up {time.monotonic() - begun:.1f} s after the healing")
    for client in clients:
        client.stop()
    for schedule in (_get(made, house, "/api/schedules") or {"items": []})["items"]:
        made.ask(house, "PATCH", f"/api/schedules/{schedule['id']}", {"paused": True})

    def settled() -> tuple[bool, object]:
        waiting = sum(client.unanswered for client in clients)
        (now,) = rows(made.database, LIVE)
        return not waiting and not now["live"], (waiting, now["live"], now["event"])

    begun = time.monotonic()
    monkey.run(_while_it_moves(STILL_S, settled))
    say(f"all is {'final' if settled()[0] else 'NOT final'} after {time.monotonic() - begun:.1f} s more")
    return []


def _living_faults(made: Installation, monkey: Monkey, house: House) -> list[str]:
    """What is left of runs while everything still lives: spools, processes, slots, memory."""

    def left() -> list[str]:
        spools = [str(path) for worker in made.workers for path in made.folder.glob(f"{worker.name}/worker/*/runs/*")]
        pids = [f"process {pid} of a run is left" for pid in made.marked() if is_run(pid)]
        workers = (_get(made, house, "/api/workers") or {"items": []})["items"]
        return [f"the spool {path} is left" for path in spools] + pids + verdict.worker_faults(workers)

    monkey.run(_within(EMPTY_S, lambda: not left()))
    sizes = {service.name: size_of(service.pid) for service in made.services if service.pid}
    return left() + verdict.size_faults(sizes)


def _listed(made: Installation, house: House) -> dict[str, str]:
    """Every run of the API: id -> state."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page = _get(made, house, f"/api/runs?limit=100{cursor}")
        if page is None:
            return found
        found |= {item["id"]: item["state"] for item in page["items"]}
        if not page["next_cursor"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return "(it has just ended)"


# ------------------------------------------------------------------------------------------------------------- judging


def _kept_faults(
    made: Installation, deeds: Deeds, unanswered: int, listed: dict[str, str], say: Callable[[str], None]
) -> list[str]:
    """What rows, ledger and API say, after everything has ended."""
    runs: dict[str, Row] = {row["id"]: row for row in rows(made.database, RUNS)}
    entries = made.ledger.entries()
    raw: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter()
    for row in rows(made.database, RAW):
        dropped[row["run"]] += row["dropped"]
        if not row["dropped"]:
            raw.setdefault(row["run"], []).append(row["message"])
    due: dict[int, list[float]] = {}
    for row in rows(made.database, "SELECT schedule_id, due_at FROM runs_run WHERE due_at IS NOT NULL"):
        at = row["due_at"] if isinstance(row["due_at"], datetime) else datetime.fromisoformat(row["due_at"])
        due.setdefault(row["schedule_id"], []).append(at.timestamp())
    _summarise(made, deeds, runs, due, say)
    return [
        *verdict.key_faults(deeds, runs, unanswered),
        *verdict.cause_faults(deeds, entries, runs),
        *verdict.raw_faults(deeds, entries, raw, dropped, runs),
        *verdict.schedule_faults(due, PERIOD_S, deeds.jumped),
        *verdict.api_faults(listed, runs),
        *faults(made.database, made.ledger.path),
    ]


def _summarise(
    made: Installation, deeds: Deeds, runs: dict[str, Row], due: dict[int, list[float]], say: Callable[[str], None]
) -> None:
    lines = rows(made.database, "SELECT count(*) AS n FROM runs_logline")[0]["n"]
    states = ", ".join(f"{n} {state}" for state, n in sorted(Counter(run["state"] for run in runs.values()).items()))
    fired = len(list(itertools.chain.from_iterable(due.values())))
    answers = ", ".join(f"{n} × {name}" for name, n in sorted(deeds.answers.items()))
    say(f"{len(runs)} runs ({states}), {len(deeds.accepted)} accepted keys, {fired} due times, {lines} log lines")
    say(f"answers to the clients: {answers}")
    for service in made.services:
        text = service.log.read_text(errors="replace")
        if count := text.count("Traceback (most recent call last)"):
            say(f"{service.name}: {count} tracebacks in {service.log}")
