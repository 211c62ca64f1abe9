"""What user code really did, by its own account outside Perfect, and what the monkey and the clients did to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Ledger:
    """The flows' file; see ``flows/chaos_flows.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def pids(self) -> set[int]:
        return {entry["pid"] for entry in self.entries()}

    def running(self) -> list[int]:
        """The pids of runs that have started and not told of their end; some may be dead."""
        found: dict[str, int] = {}
        for entry in self.entries():
            if entry.get("start"):
                found[entry["run"]] = entry["pid"]
            elif entry.get("end"):
                found.pop(entry["run"], None)
        return sorted(set(found.values()))


@dataclass
class Deeds:
    """What was done to an installation: the only causes that a run may have for not ending as its code says.

    ``at`` is the machine's monotonic time in seconds, as in the flows' ledger."""

    accepted: dict[str, str] = field(default_factory=dict)  # idempotency key -> run, from a 201
    asked: set[str] = field(default_factory=set)  # every key that was ever sent
    cancelled: set[str] = field(default_factory=set)  # runs whose cancel was asked for
    killed: set[int] = field(default_factory=set)  # pids of runs
    ended: list[tuple[float, str]] = field(default_factory=list)  # (at, worker): with all its runs
    zygotes: list[tuple[float, str]] = field(default_factory=list)  # (at, worker): the process that starts runs alone
    wrong: list[str] = field(default_factory=list)  # what was seen to be wrong while it went on
    answers: dict[str, int] = field(default_factory=dict)  # how often each answer came
    jumped: bool = False  # whether the wall clock did
