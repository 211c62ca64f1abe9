"""Two spools become one stream in the order of time, and every record keeps its number."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client.journal import spool
from perfect_client.journal.merge import Merged
from perfect_client.journal.tail import RING_BYTES, Tail, read_tail
from perfect_client.journal.unfinished_lines import MARKS, SLOTS, attach, create
from perfect_client.wire import messages
from perfect_client.worker.pipes import Output


def record(at, text):
    return messages.encode_fact(messages.Logged(at, text))


class Spools:
    """Both spools of an attempt, written as its process and its supervisor do."""

    def __init__(self, folder):
        self.paths = [folder / "1.facts", folder / "1.raw"]
        self.order = folder / "1.order"
        self.writers = [spool.Writer(path) for path in self.paths]
        self.facts = spool.Reader(self.paths[0])
        self.merged = Merged(self.facts, self.order)
        self.raw = None

    def write(self, which, at):
        if which and self.raw is None:
            self.merged.expect_raw()
            self.raw = spool.Reader(self.paths[1])
        self.writers[which].append(record(at, f"{'raw' if which else 'told'} {at}"))

    def look(self):
        told = self.facts.refresh()
        if self.raw is None:
            self.merged.take(told)
        else:
            self.raw.refresh()
            self.merged.merge(told, self.raw)

    def close(self):
        for each in (*self.writers, self.facts, self.raw):
            if each is not None:
                each.close()

    def restart(self):
        for reader in (self.facts, self.raw):
            if reader is not None:
                reader.close()
        self.facts = spool.Reader(self.paths[0])
        self.raw = spool.Reader(self.paths[1]) if self.raw is not None else None
        self.merged = Merged(self.facts, self.order)
        self.merged.restore(self.raw)

    def sent(self):
        return self.merged.read(1, 10_000, 1 << 24)


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 1), st.sampled_from(["look", "restart"])), max_size=60))
def test_every_record_is_there_once_in_the_order_of_time_and_keeps_its_number(steps):
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Spools(Path(folder))) as spools:
        sent = []
        for at, step in enumerate(steps):
            if step == "look":
                spools.look()
                assert spools.sent()[: len(sent)] == sent
                sent = spools.sent()
            elif step == "restart":
                spools.restart()
                spools.look()
                assert spools.sent()[: len(sent)] == sent
                sent = spools.sent()
            else:
                spools.write(step, float(at))
        spools.look()
        written = [
            record(float(at), f"{'raw' if step else 'told'} {float(at)}")
            for at, step in enumerate(steps)
            if step in (0, 1)
        ]
        assert spools.sent()[: len(sent)] == sent
        assert spools.sent() == written


@settings(deadline=None)
@given(st.lists(st.one_of(st.tuples(st.integers(0, 1), st.floats(0, 9)), st.sampled_from(["look", "restart"]))))
def test_whatever_the_times_are_every_record_is_there_once_and_keeps_its_number(steps):
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Spools(Path(folder))) as spools:
        sent = []
        for step in [*steps, "restart", "look"]:
            if step == "restart":
                spools.restart()
            elif step == "look":
                spools.look()
            else:
                spools.write(*step)
            assert spools.sent()[: len(sent)] == sent
            sent = spools.sent()

        written = [record(at, f"{'raw' if which else 'told'} {at}") for which, at in (s for s in steps if len(s) == 2)]
        assert sorted(sent) == sorted(written)


def test_raw_lines_come_before_the_outcome_that_is_known_at_the_same_time(tmp_path):
    spools = Spools(tmp_path)
    spools.writers[0].append(record(1.0, "told"))
    spools.writers[0].append(messages.encode_fact(messages.RunEnded(2.0, "COMPLETED")))
    spools.write(1, 3.0)
    spools.look()

    assert [messages.decode(data).time for data in spools.sent()] == [1.0, 3.0, 2.0]


def test_a_batch_may_cross_the_seams_and_ends_within_its_limits(tmp_path):
    spools = Spools(tmp_path)
    for at in range(100):
        spools.write(at % 2, float(at))
    spools.look()
    whole = spools.sent()

    assert spools.merged.read(10, 20, 1 << 20) == whole[9:29]
    some = spools.merged.read(10, 100, 500)
    assert some == whole[9 : 9 + len(some)] and 0 < sum(map(len, some)) <= 500
    assert spools.merged.read(10, 100, 1) == whole[9:10]


def test_a_torn_order_is_read_as_far_as_it_is_whole(tmp_path):
    spools = Spools(tmp_path)
    for at in range(10):
        spools.write(at % 2, float(at))
        spools.look()
    before = spools.sent()
    spools.order.write_bytes(spools.order.read_bytes()[:-2])
    spools.restart()
    spools.look()
    assert spools.sent() == before

    spools.write(1, 10.0)
    spools.write(0, 3.0)
    spools.look()
    after = spools.sent()
    spools.restart()
    assert (after[:10], spools.sent()) == (before, after)


# ------------------------------------------------------------------------------------------------ the mapped files


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 100), st.integers(50_000, 140_000)), max_size=40))
def test_a_ring_keeps_the_last_records_and_counts_the_others(sizes):
    with tempfile.TemporaryDirectory() as folder:
        ring = Tail(Path(folder) / "1.tail")
        records = [b"%d " % n + b"x" * size for n, size in enumerate(sizes) if size < RING_BYTES // 2 - 20]
        for data in records:
            ring.add(data)
        left, last = read_tail(Path(folder) / "1.tail")

    assert (left, last) == ring.kept()
    assert last == records[left:]
    assert left == 0 or sum(len(data) + 4 for data in records[left - 1 :]) > RING_BYTES


def test_a_ring_without_a_file_is_in_memory(tmp_path):
    ring = Tail(tmp_path / "missing" / "1.tail")
    ring.add(b"a")

    assert ring.kept() == (0, [b"a"])
    assert read_tail(tmp_path / "missing" / "1.tail") == (0, [])


def test_an_open_line_is_read_as_it_stands(tmp_path):
    path = str(tmp_path / "1.open")
    writer = create(path)
    slot = writer.take_slot()
    writer.hold(slot, "gr\u00fc\x00", 30, 2, 1.5)
    reader = attach(path)

    assert [tuple(line) for line in reader.lines()] == [(1.5, "gr\u00fc\u2400", 30, 2, False)]
    writer.telling(slot, 30, 2, 2.0)
    assert [tuple(line)[-1] for line in reader.lines()] == [True]
    writer.clear(slot)
    assert reader.lines() == []


def test_there_are_so_many_slots_and_no_more(tmp_path):
    writer = create(str(tmp_path / "1.open"))
    slots = [writer.take_slot() for _ in range(SLOTS + 1)]

    assert len(set(slots)) == SLOTS + 1 and slots[-1] == 0
    writer.give_back(slots[3])
    assert writer.take_slot() == slots[3]


@pytest.mark.parametrize("marks", [3, MARKS + 10])
def test_marks_that_nobody_read_in_time_are_left_out(tmp_path, marks, monkeypatch):
    writer = create(str(tmp_path / "1.open"))
    reader = attach(str(tmp_path / "1.open"))
    writer._pipes = (0, 0)
    written = iter(range(1, marks + 1))
    monkeypatch.setattr(writer, "_written", lambda: (0, (next(written), 0), False))
    for at in range(marks):
        writer.moment(lambda at=at: float(at))

    assert [mark.time for mark in reader.marks()] == [float(at) for at in range(marks)][-MARKS:]
    assert reader.marks() == []


# --------------------------------------------------------------------------------- raw output among the told lines


class Piped:
    """Both ends of a run's pipes and of its mapped file, so that a test can do what each does when it wants."""

    def __init__(self, folder, listen=True):
        self.path, self.raw = folder / "1.open", folder / "1.raw"
        self.output = Output(self.raw)
        self.pipes = (self.output.pipe(20), self.output.pipe(30))
        if listen:
            self.begin()
            self.output.listen(self.path)

    def begin(self):
        self.run = create(str(self.path))
        self.run._pipes = self.pipes

    def write(self, text, fd=0):
        os.write(self.pipes[fd], text.encode() + b"\n")

    def times(self):
        """Of the raw lines, once everything is read."""
        self.output.drain()
        self.output.close()
        reader = spool.Reader(self.raw)
        found = [messages.decode(data) for data in reader.read(1, 10_000, 1 << 24)]
        reader.close()
        return {line.message: line.time for line in found}


def test_however_far_the_supervisor_is_behind_raw_lines_keep_their_place(tmp_path):
    piped = Piped(tmp_path)
    told = []

    def speak():
        for number in range(3 * MARKS):
            piped.write(f"raw {number}", number % 2)
            told.append(piped.run.moment(time.time))

    speaker = threading.Thread(target=speak)
    speaker.start()
    speaker.join(0.2)
    while speaker.is_alive():
        piped.output.drain()
        speaker.join(0.01)

    times = piped.times()
    assert len(times) == 3 * MARKS
    before = [0.0, *told]
    assert all(before[n] <= times[f"raw {n}"] <= told[n] for n in range(3 * MARKS))


def test_raw_output_that_is_read_after_a_record_was_created_and_before_it_is_told_comes_before_it(tmp_path):
    piped = Piped(tmp_path)
    piped.write("raw")
    created = time.time()
    piped.output.drain()
    at = piped.run.moment(time.time, created)

    assert piped.times()["raw"] <= at


def test_a_record_has_the_time_at_which_it_was_created_when_raw_output_still_waits(tmp_path):
    piped = Piped(tmp_path)
    piped.write("raw")

    assert piped.run.moment(time.time, 5.0) == 5.0
    assert piped.run.moment(time.time, 6.0) == 6.0
    assert piped.times()["raw"] == 5.0


def test_a_line_of_another_thread_does_not_hide_that_the_supervisor_has_read(tmp_path):
    piped = Piped(tmp_path)
    piped.write("raw")

    def clock():
        at = time.time()
        piped.output.drain()  # between the look into the pipes and the mark
        piped.run._written()  # as another thread's line does
        return at

    at = piped.run.moment(clock)

    assert piped.times()["raw"] <= at


@pytest.mark.parametrize("said", ["", "by the imports"])
def test_code_that_begins_while_the_supervisor_turns_to_its_pipes_has_its_lines_in_order(tmp_path, said):
    piped = Piped(tmp_path, listen=False)
    if said:
        piped.write(said)
        piped.output.drain()
    piped.output.listen(piped.path)
    piped.begin()
    piped.write("raw")
    at = piped.run.moment(time.time)

    assert piped.times()["raw"] <= at


def test_code_that_begins_while_the_supervisor_reads_has_its_lines_in_order(tmp_path, monkeypatch):
    piped = Piped(tmp_path, listen=False)
    piped.output.listen(piped.path)
    real, told = os.readv, []

    def readv(fd, buffers):
        if not told:
            piped.begin()
            piped.write("raw")
            told.append(piped.run.moment(time.time))
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)

    assert piped.times()["raw"] <= told[0]
