"""What happens when: a seed makes a plan of faults, and the same seed makes the same plan. Pure."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

CALM_S = 4.0  # mean time between two faults
SHORT, LONG = (0.5, 4.0), (3.0, 9.0)
JUMPS_S = (-600, -90, -7, 7, 90, 600)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how often it comes beside the others, which service it meets, how long it lasts."""

    weight: int
    meets: str = ""
    lasts: tuple[float, float] = (0.0, 0.0)


KINDS: dict[str, Kind] = {
    "kill the server": Kind(5, "server"),
    "end the server": Kind(3, "server"),
    "stop the server": Kind(4, "server", LONG),
    "kill the worker": Kind(4, "worker"),
    "end the worker": Kind(2, "worker"),
    "stop the worker": Kind(4, "worker", LONG),
    "kill the zygote": Kind(3, "worker"),
    "kill a run": Kind(4, "worker"),
    "stop a run": Kind(3, "worker", SHORT),
    "kill worker and server": Kind(2, "worker"),
    "stop the worker, kill the server": Kind(2, "worker", SHORT),
    "cut the network": Kind(4, "worker"),
    "delay the network": Kind(3, "worker", LONG),
    "stall the network": Kind(3, "worker", LONG),
    "half-open the network": Kind(3, "worker", LONG),
    "lock the database": Kind(3, "", LONG),
    "fill the disk": Kind(3, "server", SHORT),
    "jump the clock": Kind(3, "server"),
    "cut the database": Kind(3, ""),
}


@dataclass(frozen=True)
class Fault:
    """``at``, ``seconds``: s from the start, and how long. ``target``: which server or worker. ``size``: s of a jump,
    or of a delay."""

    at: float
    kind: str
    target: int = 0
    seconds: float = 0.0
    size: float = 0.0

    def __str__(self) -> str:
        meets = KINDS[self.kind].meets
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        size = f" by {self.size:g} s" if self.size else ""
        return f"{self.at:7.1f} s  {self.kind}{f' ({meets} {self.target})' if meets else ''}{size}{lasts}"


def plan(seed: int, seconds: float, *, servers: int, workers: int, possible: Collection[str]) -> list[Fault]:
    """The faults of that many seconds, in order. Every kind that is possible here comes once before any comes again by
    chance, as far as the time allows."""
    chance = random.Random(seed)
    first = [kind for kind in KINDS if kind in possible]
    chance.shuffle(first)
    weights = [KINDS[kind].weight for kind in first]
    found: list[Fault] = []
    at = 2.0
    while at < seconds and first:
        kind = first[len(found)] if len(found) < len(first) else chance.choices(first, weights)[0]
        count = {"server": servers, "worker": workers}.get(KINDS[kind].meets, 1)
        size = {
            "jump the clock": float(chance.choice(JUMPS_S)),
            "delay the network": round(chance.uniform(0.05, 0.5), 2),
        }.get(kind, 0.0)
        lasts = round(chance.uniform(*KINDS[kind].lasts), 1)
        found.append(Fault(round(at, 1), kind, chance.randrange(count), lasts, size))
        at += min(chance.expovariate(1 / CALM_S), 3 * CALM_S)
    return found
