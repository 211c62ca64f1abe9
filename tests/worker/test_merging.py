"""Two spools become one stream in the order of time, and every record keeps its number."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import protocol, spool
from perfect_client.merging import Merged
from perfect_client.openlines import MARKS, SLOTS, attach, create
from perfect_client.tail import RING_BYTES, Tail, kept


def record(at, text):
    return protocol.encode_fact(protocol.Logged(at, text))


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

    def restart(self):
        self.facts = spool.Reader(self.paths[0])
        self.raw = spool.Reader(self.paths[1]) if self.raw is not None else None
        self.merged = Merged(self.facts, self.order)
        self.merged.restore(self.raw)

    def sent(self):
        return self.merged.read(1, 10_000, 1 << 24)


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 1), st.sampled_from(["look", "restart"])), max_size=60))
def test_every_record_is_there_once_in_the_order_of_time_and_keeps_its_number(steps):
    with tempfile.TemporaryDirectory() as folder:
        spools = Spools(Path(folder))
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
        written = [record(float(at), f"{'raw' if step else 'told'} {float(at)}") for at, step in enumerate(steps)
                   if step in (0, 1)]  # fmt: skip
        assert spools.sent()[: len(sent)] == sent
        assert spools.sent() == written


@settings(deadline=None)
@given(st.lists(st.one_of(st.tuples(st.integers(0, 1), st.floats(0, 9)), st.sampled_from(["look", "restart"]))))
def test_whatever_the_times_are_every_record_is_there_once_and_keeps_its_number(steps):
    with tempfile.TemporaryDirectory() as folder:
        spools = Spools(Path(folder))
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
    spools.writers[0].append(protocol.encode_fact(protocol.RunEnded(2.0, "COMPLETED")))
    spools.write(1, 3.0)
    spools.look()

    assert [protocol.decode(data).time for data in spools.sent()] == [1.0, 3.0, 2.0]


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
        left, last = kept(Path(folder) / "1.tail")

    assert (left, last) == ring.kept()
    assert last == records[left:]
    assert left == 0 or sum(len(data) + 4 for data in records[left - 1 :]) > RING_BYTES


def test_a_ring_without_a_file_is_in_memory(tmp_path):
    ring = Tail(tmp_path / "missing" / "1.tail")
    ring.add(b"a")

    assert ring.kept() == (0, [b"a"])
    assert kept(tmp_path / "missing" / "1.tail") == (0, [])


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
    monkeypatch.setattr(writer, "_written", lambda: (next(written), 0))
    for at in range(marks):
        writer.moment(lambda at=at: float(at))

    assert [mark.time for mark in reader.marks()] == [float(at) for at in range(marks)][-MARKS:]
    assert reader.marks() == []
