"""Whatever a run wrote past Python is kept, or counted as lost, when its worker is killed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.journal import spool, tail, unfinished_lines, unread
from perfect_client.wire import messages
from perfect_client.worker.pipes import Output

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 1), st.sampled_from(["a\n", "b\nc\n", "half ", "d\ne", "\n"])),
        st.sampled_from([("drain",), ("hold",), ("full disk",), ("room again",), ("supervisor speaks",)]),
    ),
    max_size=40,
)


class Life:
    """A supervisor's output of one run, and what its zygote holds; it never ends in good order."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self.beside = lambda kind: folder / f"1.{kind}"
        self.buffer = unread.Buffer(folder / "reading")
        self.output = Output(self.beside("raw"), cap_bytes=cap_bytes, buffer=self.buffer)
        self.writing = [self.output.pipe(20), self.output.pipe(30)]
        self.zygote = unread.Pipes()
        self.zygote.keep(1, [os.dup(fd) for fd in self.output.open_pipes])
        unfinished_lines.create(str(self.beside("open"))).close()
        self.output.listen(self.beside("open"))
        self.written = ["", ""]
        self.said = 0
        self.disk_is_full = False

    def take(self, step: tuple) -> None:
        if step[0] == "write":
            _, pipe, text = step
            self.written[pipe] += text
            os.write(self.writing[pipe], text.encode())
        elif step[0] == "drain":
            self.output.drain()
        elif step[0] == "hold":
            self.output.hold(self.beside("rawopen"))
        elif step[0] == "supervisor speaks":
            self.said += 1
            self.output.add("said", 30)
        else:
            self.disk_is_full = step[0] == "full disk"

    def die(self, folder: Path) -> None:
        for fd in self.writing:
            os.close(fd)
        self.zygote.count(str(folder))
        for fd in self.output.open_pipes:
            os.close(fd)
        self.zygote.close()

    def lines(self) -> int:
        return self.said + sum(len(text.split("\n")) - text.endswith("\n") - (not text) for text in self.written)


def kept_and_lost(path: Path) -> tuple[int, int]:
    reader = spool.Reader(path)
    found = [messages.decode(record) for record in reader.read(1, 10_000, 1 << 24)]
    return sum(not line.dropped for line in found), sum(line.dropped for line in found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from([60, 200, 1 << 20]), st.sampled_from([400, 1 << 20]))
def test_each_line_is_kept_or_counted(tmp_path_factory, steps, room, ring):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        append, moments = spool.Writer.append_many, itertools.count()
        patched.setattr(tail, "RING_BYTES", ring)
        patched.setattr("perfect_client.worker.pipes.time.monotonic", lambda: float(next(moments)))
        life = Life(folder, spool.RESERVED_BYTES + room)

        def append_many(self, records):
            if life.disk_is_full:
                raise OSError("no space")
            append(self, records)

        patched.setattr(spool.Writer, "append_many", append_many)
        for step in steps:
            life.take(step)
        life.disk_is_full = False
        life.die(folder)

        raw = spool.Reader(life.beside("raw")) if life.beside("raw").exists() else None
        after = Output(life.beside("raw"), cap_bytes=spool.RESERVED_BYTES + (1 << 20))
        after.recover(life.beside, raw, folder / "reading")
        after.close()

    assert sum(kept_and_lost(life.beside("raw"))) == life.lines()


def test_what_was_just_being_read_is_counted(tmp_path, monkeypatch):
    life = Life(tmp_path, 1 << 20)
    life.take(("write", 0, "a\nb\nhal"))
    life.take(("write", 1, "other"))
    real = life.buffer.read

    def read(fd):
        real(fd)
        raise KeyboardInterrupt  # as if it was killed now

    monkeypatch.setattr(life.buffer, "read", read)
    with pytest.raises(KeyboardInterrupt):
        life.output.drain()
    life.die(tmp_path)

    after = Output(life.beside("raw"))
    after.recover(life.beside, None, tmp_path / "reading")

    assert kept_and_lost(life.beside("raw")) == (0, 4)


def test_no_secret_stays_where_the_worker_reads_to(tmp_path):
    life = Life(tmp_path, 1 << 20)
    life.take(("write", 0, "a secret\n"))
    life.output.drain()

    assert unread.read_leftover(tmp_path / "reading") == b""
    assert len((tmp_path / "reading").read_bytes()) == unread.READ_BYTES
