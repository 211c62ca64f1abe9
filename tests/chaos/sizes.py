"""How much a process takes: memory, open files, threads."""

from __future__ import annotations

import os
from pathlib import Path


def size_of(pid: int) -> tuple[float, int, int]:
    """(MiB of proportional memory, open files, threads); zeros for a process that is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return pss / 1024, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, StopIteration):
        return 0.0, 0, 0
