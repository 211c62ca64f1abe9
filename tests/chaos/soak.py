"""``make soak MINUTES=30 RATE=10``: so many runs a second, and how memory, open files and threads grow meanwhile.

Each figure's slope is the least-squares line over all samples after the warm-up. What cannot be seen in the noise of
the samples (their spread around the line) is no growth.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression

from tests.journeys.checker import faults, rows

from .chaos import UP_S, _up, _within
from .installation import Installation, children_of, installed
from .ledger import Deeds
from .monkey import Monkey
from .sizes import size_of

WARM_UP_S = 300.0
EVERY_S = 5.0
TRIGGERS = 4
BATCH = 10  # runs a request, as a script that has much to start would ask
MOST_GROWTH = {"MiB": 0.15, "files": 0.2, "threads": 0.1}  # a minute
Sample = tuple[float, float, int, int]  # s, MiB, open files, threads


@dataclass(frozen=True)
class Slope:
    """``growth`` a minute over the samples, from ``first`` (the mean of the first tenth) to ``last``."""

    of: str
    unit: str
    first: float
    last: float
    growth: float

    @property
    def flat(self) -> bool:
        return self.growth <= MOST_GROWTH[self.unit]

    def __str__(self) -> str:
        word = "flat" if self.flat else "GROWS"
        return (
            f"{self.of:<10}{self.unit:<9}{self.first:>9.1f} → {self.last:>9.1f}{self.growth:>+10.3f} a minute   {word}"
        )


def slopes(of: str, samples: list[Sample]) -> list[Slope]:
    """The three slopes of a process. Pure."""
    minutes = [at / 60 for at, *_ in samples]
    tenth = max(1, len(samples) // 10)
    found = []
    for place, unit in enumerate(MOST_GROWTH, 1):
        values = [float(sample[place]) for sample in samples]
        growth = linear_regression(minutes, values).slope
        found.append(Slope(of, unit, fmean(values[:tenth]), fmean(values[-tenth:]), growth))
    return found


def soak(
    folder: Path, *, seconds: float, rate: float, warm_up_s: float, postgres: bool, say: Callable[[str], None]
) -> bool:
    """Whether everything stayed flat, every run completed and the checker found nothing."""
    with installed(folder, servers=2 if postgres else 1, workers=1, postgres=postgres, faults=False) as made:
        quiet, house = Monkey(made, Deeds(), [], say), made.caller()
        quiet.run(_within(UP_S, lambda: _up(made, house)))
        stop = threading.Event()
        asked: list[int] = []
        threads = [
            threading.Thread(target=_trigger, args=(made, rate / TRIGGERS, stop, asked)) for _ in range(TRIGGERS)
        ]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        samples: dict[str, list[Sample]] = {}
        while (now := time.monotonic() - begun) < seconds:
            if now >= warm_up_s:
                for name, pid in _watched(made).items():
                    samples.setdefault(name, []).append((now, *size_of(pid)))
            stop.wait(EVERY_S)
        stop.set()
        for thread in threads:
            thread.join()
        settled = _within(
            120, lambda: not rows(made.database, "SELECT 1 FROM runs_run WHERE finished_at IS NULL LIMIT 1")
        )
        quiet.run(settled)
        (done,) = rows(made.database, "SELECT count(*) AS n FROM runs_run WHERE state = 'COMPLETED'")
        say(f"{done['n']} of {sum(asked)} runs completed in {seconds:g} s: {done['n'] / seconds:.1f} a second")
        lines = [line for name, taken in samples.items() for line in slopes(name, taken)]
        for line in lines:
            say(str(line))
        found = faults(made.database)
        for sentence in found:
            say(f"VIOLATION  {sentence}")
        return all(line.flat for line in lines) and done["n"] == sum(asked) and not found


def _watched(made: Installation) -> dict[str, int]:
    pids = {service.name: service.pid for service in made.services}
    return pids | dict(zip(["zygote"], children_of(made.workers[0].pid)))


def _trigger(made: Installation, rate: float, stop: threading.Event, asked: list[int]) -> None:
    """Ask for ``rate`` runs a second, whatever the answers take."""
    house = made.caller()
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += BATCH / rate
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer = made.ask(house, "POST", "/api/runs", {"items": [{"flow": "quick"}] * BATCH})
            asked.append(len(answer["items"]) if status == 201 else 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds that are not judged")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="perfect-soak-"))
    print(f"{options.rate:g} runs a second for {options.minutes:g} minutes, in {folder}", flush=True)
    fine = soak(
        folder,
        seconds=options.minutes * 60,
        rate=options.rate,
        warm_up_s=options.warm_up,
        postgres=options.database == "postgres",
        say=lambda line: print(line, flush=True),
    )
    if fine:
        shutil.rmtree(folder)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
