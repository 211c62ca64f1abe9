"""Clients trigger with idempotency keys until each key has its answer, cancel some runs, and note what they got."""

from __future__ import annotations

import http.client
import random
import threading
import time
from typing import Any

from .installation import Installation
from .ledger import Deeds

CANCEL_SHARE, TWICE_SHARE = 0.07, 0.1
WAITING = frozenset({429, 502, 503, 507})  # "not now": the same request again, later
AGAIN_S = 1.0
Wish = tuple[str, dict[str, Any]]


def wish(chance: random.Random) -> Wish:
    """A flow and its parameters."""
    end = chance.choices(("return", "raise", "exit", "vanish", "die"), (88, 4, 3, 3, 2))[0]
    kind = chance.random()
    if kind < 0.15:
        return "family", {"steps": chance.randint(1, 3), "lines": chance.randint(0, 10)}
    if kind < 0.20:
        return "work", {"steps": 2, "lines": 2000, "pause": 0.0, "end": end}
    if kind < 0.35:
        return "work", {"steps": 6, "lines": 20, "pause": round(chance.uniform(0.3, 1.5), 2), "end": end}
    return "work", {"steps": chance.randint(1, 4), "lines": chance.randint(0, 20), "pause": 0.1, "end": end}


class Client(threading.Thread):
    """One person's script: ``rate`` runs a second, until ``stop``; then it asks on until every key has its answer."""

    def __init__(self, made: Installation, deeds: Deeds, *, seed: str, rate: float) -> None:
        super().__init__(name=f"client {seed}", daemon=True)
        self._made, self._deeds, self._seed, self._rate = made, deeds, seed, rate
        self._chance = random.Random(seed)
        self._open: dict[str, Wish] = {}
        self._house = made.caller()
        self._stopping, self._giving_up = threading.Event(), threading.Event()

    @property
    def unanswered(self) -> int:
        return len(self._open)

    def stop(self) -> None:
        self._stopping.set()

    def give_up(self) -> None:
        self._giving_up.set()
        self.join(60)

    def run(self) -> None:
        number, next_again = 0, 0.0
        while not self._giving_up.is_set() and not (self._stopping.is_set() and not self._open):
            if not self._stopping.is_set():
                number += 1
                key = f"{self._seed}-{number}"
                self._open[key] = wish(self._chance)
                self._ask(key)
            if time.monotonic() > next_again:
                for key in list(self._open):
                    self._ask(key)
                next_again = time.monotonic() + AGAIN_S
            self._giving_up.wait(self._chance.expovariate(self._rate))

    def _ask(self, key: str) -> None:
        flow, parameters = self._open[key]
        self._deeds.asked.add(key)
        status, answer = self._request(f"/api/flows/{flow}/runs", {"parameters": parameters, "idempotency_key": key})
        if status != 201:
            return
        run = self._deeds.accepted.setdefault(key, answer["id"])
        del self._open[key]
        if self._chance.random() < TWICE_SHARE:
            again, told = self._request(f"/api/flows/{flow}/runs", {"parameters": parameters, "idempotency_key": key})
            if again == 201 and told["id"] != run:
                self._deeds.wrong.append(f"the key {key} was answered with the run {run}, and then with {told['id']}")
        if self._chance.random() < CANCEL_SHARE:
            self._giving_up.wait(self._chance.uniform(0, 1))
            self._deeds.cancelled.add(run)  # before it is known whether the server heard of it
            self._request(f"/api/runs/{run}/cancel", {})

    def _request(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, answer); 0 when there was none. What no client should ever be told is noted."""
        try:
            status, answer = self._made.ask(self._house, "POST", path, body)
        except (OSError, http.client.HTTPException) as none:
            status, answer = 0, type(none).__name__
        name = str(status or answer)
        self._deeds.answers[name] = self._deeds.answers.get(name, 0) + 1
        fine = status in WAITING or status in (0, 201) or ("cancel" in path and status in (200, 202, 409))
        if not fine or "database is locked" in str(answer):
            self._deeds.wrong.append(f"POST {path} was answered {status}: {str(answer)[:300]}")
        return status, answer
