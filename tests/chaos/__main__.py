"""``make chaos MINUTES=10 SEED=7 [DATABASE=postgres]``: exit 0 if every promise held, else 1 with what did not."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from .chaos import unleash
from .plan import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rate", type=float, default=2.5, help="runs a second")
    parser.add_argument("--only", action="append", choices=list(KINDS), metavar="FAULT", help="by default all kinds")
    parser.add_argument("--keep", action="store_true", help="keep the folder although nothing is wrong")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"perfect-chaos-{options.seed}-"))
    print(f"{options.minutes:g} minutes on {options.database}, seed {options.seed}, in {folder}", flush=True)
    found = unleash(
        folder,
        seconds=options.minutes * 60,
        seed=options.seed,
        postgres=options.database == "postgres",
        rate=options.rate,
        only=options.only or KINDS,
        say=lambda line: print(line, flush=True),
    )
    for sentence in found:
        print(f"VIOLATION  {sentence}")
    print(f"{len(found)} violations; all of it is in {folder}" if found else "no violation")
    if not found and not options.keep:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
