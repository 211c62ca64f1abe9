"""What a run's process does with its facts where the disk takes none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Iterator, List, Sequence

import pytest
from perfect_client.execution import child
from perfect_client.execution.child import Emitter, Stop
from perfect_client.journal.spool import Reader, Writer
from perfect_client.wire.messages import RunEnded


class Clock:
    """Stands in for ``time``: sleeping takes none."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Disk(Writer):
    """A spool on a disk that takes nothing until a time, and is broken for the last ten seconds before it."""

    def __init__(self, path: Path, clock: Clock, trouble: int, until: float, last: int = 0) -> None:
        super().__init__(path)
        self._clock, self._trouble, self._until, self._last = clock, trouble, until, last or trouble

    def append_many(self, records: Sequence[bytes]) -> None:
        if self._clock.now < self._until:
            trouble = self._trouble if self._clock.now < self._until - 10 else self._last
            raise OSError(trouble, os.strerror(trouble))
        super().append_many(records)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(child, "time", made)
    return made


@pytest.fixture
def bell() -> Iterator[int]:
    read, write = os.pipe()
    yield write
    os.close(read)
    os.close(write)


def told(path: Path) -> List[str]:
    return [json.loads(record)["outcome"] for record in Reader(path).read(1, 100, 1 << 20)]


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("last", [0, errno.EIO])
def test_an_outcome_waits_until_a_full_disk_has_room(
    tmp_path: Path, clock: Clock, bell: int, trouble: int, last: int
) -> None:
    """Without it the supervisor would tell a run dead that has completed."""
    path = tmp_path / "1.facts"
    disk = Disk(path, clock, trouble, until=clock.now + 24 * 3600, last=last)

    Emitter(disk, bell, lambda: None, Stop())(RunEnded(1.0, "COMPLETED"))

    assert told(path) == ["COMPLETED"]


def test_an_outcome_does_not_wait_for_ever_for_a_broken_disk(tmp_path: Path, clock: Clock, bell: int) -> None:
    path, began = tmp_path / "1.facts", clock.now
    disk = Disk(path, clock, errno.EIO, until=float("inf"))

    Emitter(disk, bell, lambda: None, Stop())(RunEnded(1.0, "COMPLETED"))

    assert told(path) == []
    assert 60 <= clock.now - began < 62


def test_an_outcome_that_was_interrupted_while_it_waited_is_told_again(
    tmp_path: Path, clock: Clock, bell: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.facts"
    disk = Disk(path, clock, errno.ENOSPC, until=clock.now + 60)
    emit = Emitter(disk, bell, lambda: None, Stop())

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(clock, "sleep", interrupt)
        emit(RunEnded(1.0, "COMPLETED"))
    emit(RunEnded(1.0, "COMPLETED"))

    assert told(path) == ["COMPLETED"]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_cancelled_that_the_code_came_to_after_it_was_stopped_is_not_its_own(
    tmp_path: Path, clock: Clock, bell: int, stopped: bool
) -> None:
    """Code that keeps what stopped it as the state of a task ends with it; that the worker ended is for it to say."""
    path, stop = tmp_path / "1.facts", Stop()
    emit = Emitter(Writer(path), bell, lambda: None, stop)
    stop.seen = stopped

    emit(RunEnded(1.0, "CANCELLED", error="Cancelled: the run was stopped", by_code=True))

    assert (told(path), emit.withheld) == (([], True) if stopped else (["CANCELLED"], False))
