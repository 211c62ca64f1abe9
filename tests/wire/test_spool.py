"""The spool file: whatever is cut, flipped or left half-written, its good prefix survives and nothing else is read."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from perfect_client.journal import spool
from perfect_client.journal.spool import MAX_RECORD_BYTES, RESERVED_BYTES, Reader, Writer, repair

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no bug
records_of_any_kind = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
posix_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "7.facts"


def write(path: Path, records: list[bytes]) -> None:
    writer = Writer(path)
    writer.append_many(records)
    writer.close()


def everything(path: Path) -> list[bytes]:
    reader = Reader(path)
    try:
        return reader.read(1, 10_000, 1 << 30)
    finally:
        reader.close()


def is_prefix(found: list[bytes], whole: list[bytes]) -> bool:
    return found == whole[: len(found)]


# ---------------------------------------------------------------------------------------------------- write and read


def test_what_is_appended_is_read_in_order_and_counted_from_1(path: Path) -> None:
    writer = Writer(path)
    writer.append(b"one")
    writer.append_many([b"two", b"three"])
    writer.append_many([])

    reader = Reader(path)

    assert reader.count == 3
    assert reader.read(1, 10, 1000) == [b"one", b"two", b"three"]
    assert reader.read(2, 1, 1000) == [b"two"]
    assert reader.last() == b"three"


def test_a_reader_waits_for_a_file_that_is_not_there_yet(path: Path) -> None:
    reader = Reader(path)
    assert (reader.count, reader.refresh(), reader.last(), reader.read(1, 1, 1)) == (0, 0, None, [])

    write(path, [b"one"])

    assert reader.count == 0
    assert reader.refresh() == 1
    assert reader.read(1, 1, 1) == [b"one"]


def test_a_reader_made_late_knows_at_once_what_is_there(path: Path) -> None:
    write(path, [b"one", b"two"])

    assert Reader(path).count == 2


@pytest.mark.parametrize(("first", "most"), [(0, 5), (-1, 5), (3, 5), (1, 0), (1, -1)])
def test_a_read_outside_of_what_is_there_is_empty(path: Path, first: int, most: int) -> None:
    write(path, [b"one", b"two"])

    assert Reader(path).read(first, most, 1000) == []


def test_a_read_keeps_to_its_bytes_but_gives_one_record_at_least(path: Path) -> None:
    write(path, [b"x" * 100, b"y" * 100, b"z" * 100])
    reader = Reader(path)

    assert reader.read(1, 10, 1) == [b"x" * 100]
    assert reader.read(1, 10, 215) == [b"x" * 100]
    assert reader.read(1, 10, 216) == [b"x" * 100, b"y" * 100]


@steady
@given(records_of_any_kind, st.integers(1, 9), st.integers(1, 9), st.integers(1, 200))
def test_any_read_is_that_piece_of_what_was_written(records: list[bytes], first: int, most: int, room: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path, records)

        found = Reader(path).read(first, most, room)

    assert found == records[first - 1 : first - 1 + len(found)]
    assert len(found) <= most
    assert len(found) <= 1 or sum(len(record) for record in found) <= room
    assert found or first > len(records)


def test_a_spool_larger_than_one_read_is_indexed_whole(path: Path) -> None:
    big = [bytes([n]) * (MAX_RECORD_BYTES - n) for n in range(1, 7)]
    writer = Writer(path)
    for record in big:
        writer.append(record)

    reader = Reader(path)

    assert reader.count == 6
    assert [reader.read(n, 9, 1)[0] for n in range(1, 7)] == big
    assert repair(path) == 6


def test_an_index_of_many_records_is_a_few_bytes_each(path: Path) -> None:
    write(path, [b"{}"] * 20_000)

    assert Reader(path)._ends.itemsize == 8


@pytest.mark.parametrize("record", [b"", b"x" * (MAX_RECORD_BYTES + 1)])
def test_a_record_that_could_never_be_delivered_is_refused_at_the_door(path: Path, record: bytes) -> None:
    writer = Writer(path)

    with pytest.raises(ValueError, match="a record has 1 to"):
        writer.append(record)
    with pytest.raises(ValueError, match="a record has 1 to"):
        writer.append_many([b"good", record])

    assert everything(path) == []


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    write(path, [b"secret"])

    assert os.name == "nt" or os.stat(path).st_mode & 0o777 == 0o600


def test_it_is_full_while_there_is_still_room_for_the_outcome(path: Path) -> None:
    writer = Writer(path, cap_bytes=RESERVED_BYTES + 100)
    assert not writer.full

    writer.append(b"x" * 100)
    assert writer.full
    writer.append(b"the outcome")
    writer.sync()

    assert everything(path)[-1] == b"the outcome"
    assert Writer(path, cap_bytes=RESERVED_BYTES + 100).full


# ------------------------------------------------------------------------------------------------------------- damage


@steady
@given(records_of_any_kind, st.integers(0, 500))
def test_a_file_cut_anywhere_keeps_its_good_prefix_and_goes_on(records: list[bytes], at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path, records)
        os.truncate(path, min(at, os.path.getsize(path)))

        before = everything(path)
        lost: list[int] = []
        good = repair(path, lost.append)
        write(path, [b"next"])

        assert is_prefix(before, records)
        assert good == len(before)
        assert sum(lost) < 8 + 40
        assert everything(path) == [*before, b"next"]


@settings(steady, max_examples=3 * settings.default.max_examples)
@given(records_of_any_kind.filter(bool), st.data())
def test_a_flipped_bit_anywhere_costs_only_what_stands_behind_it(records: list[bytes], data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path, records)
        raw = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(raw)

        found, lost = everything(path), []  # type: ignore[var-annotated]
        good = repair(path, lost.append)

        sound = next(n for n in range(len(records)) if sum(len(r) + 8 for r in records[: n + 1]) > at)
        assert found == records[:sound]
        assert good == sound
        assert sum(lost) == len(raw) - path.stat().st_size
        assert repair(path, lambda n: pytest.fail("repaired twice")) == sound


@settings(steady, max_examples=3 * settings.default.max_examples)
@given(st.binary(max_size=300))
@example(bytes(16))  # zeros that a file system left behind: length 0 with the right checksum
@example(bytes(4096))
@example(b"\xff" * 64)
@example(struct.pack("<II", 0, crc32(b"")) * 3)
def test_garbage_is_no_record(garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write(path, [b"good"])
        with open(path, "ab") as file:
            file.write(garbage)

        found = everything(path)

        assert found[:1] == [b"good"]
        for record in found[1:]:
            assert record and struct.pack("<II", len(record), crc32(record)) + record in garbage


def test_a_torn_tail_is_not_yet_there_and_then_it_is(path: Path) -> None:
    write(path, [b"one", b"two"])
    whole = path.read_bytes()
    path.write_bytes(whole[:11])
    reader = Reader(path)

    for size in range(11, len(whole)):
        path.write_bytes(whole[:size])
        assert reader.refresh() == 1
    path.write_bytes(whole)

    assert reader.refresh() == 2
    assert reader.last() == b"two"


def test_a_writer_cuts_a_torn_tail_before_it_appends(path: Path) -> None:
    write(path, [b"one", b"two"])
    os.truncate(path, path.stat().st_size - 1)

    write(path, [b"three"])

    assert everything(path) == [b"one", b"three"]


def test_a_record_that_rots_after_it_was_indexed_is_not_read(path: Path) -> None:
    write(path, [b"one", b"two", b"three"])
    reader = Reader(path)
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 1
    path.write_bytes(raw)

    assert reader.read(1, 9, 1000) == [b"one", b"two"]


def test_repair_of_a_missing_or_empty_file_finds_nothing(path: Path) -> None:
    assert repair(path) == 0
    assert not path.exists()
    path.touch()
    assert repair(path, lambda n: pytest.fail("nothing was lost")) == 0


# ---------------------------------------------------------------------------------------------------------- full disks


class Disk:
    """Takes so many bytes more, then is full, as a file system does it: with a short write first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._write = room, os.write
        monkeypatch.setattr(spool.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


@pytest.mark.parametrize("room", range(12))
def test_a_full_disk_leaves_no_torn_record_behind(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    writer = Writer(path)
    writer.append(b"one")
    disk = Disk(monkeypatch, room)

    with pytest.raises(OSError, match="No space"):
        writer.append(b"12345")
    disk.room = 10_000
    writer.append(b"two")

    assert everything(path) == [b"one", b"two"]
    assert writer.size == path.stat().st_size


def test_a_short_write_is_finished_when_it_can_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(path)
    real = os.write
    monkeypatch.setattr(spool.os, "write", lambda fd, data: real(fd, data[:3]))

    writer.append(b"in little pieces")

    assert everything(path) == [b"in little pieces"]


# ------------------------------------------------------------------------------------------------ threads and processes


def test_threads_never_mix_their_records(path: Path) -> None:
    writer = Writer(path)
    threads = [
        threading.Thread(target=lambda n=n: [writer.append(b"%d:%d" % (n, m)) for m in range(300)]) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = everything(path)

    assert len(found) == 1800
    for n in range(6):
        assert [r for r in found if r.startswith(b"%d:" % n)] == [b"%d:%d" % (n, m) for m in range(300)]


@posix_only
def test_a_forked_child_may_go_on_with_its_parents_writer(path: Path) -> None:
    writer = Writer(path)
    child = os.fork()
    for n in range(200):
        writer.append(b"%d:%d" % (child == 0, n))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

    assert len(everything(path)) == 400


@posix_only
def test_what_a_killed_writer_appended_is_there(path: Path) -> None:
    program = (
        f"import sys\nsys.path[:] = {sys.path!r}\n"
        "from perfect_client.journal.spool import Writer\nwriter = Writer(sys.argv[1])\nn = 0\n"
        "while True:\n    n += 1\n    writer.append(b'%d' % n)\n    if n == 500: print('.', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    reader = Reader(path)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        while reader.refresh() < 1000:
            assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()

    good = repair(path)

    assert good >= 1000
    assert everything(path) == [b"%d" % n for n in range(1, min(good, 10_000) + 1)]
