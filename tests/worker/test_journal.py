"""The journal of an attempt: whatever moment its writer is killed in, what stands there is an entry that it wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import List

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect_client.journal.journal import Entry, Folder, load
from perfect_client.wire import messages

ORDER = messages.OfferRun(7, "0190-run", "daily-etl", {"text": 'a\nb "c" é'}, lineage=[messages.Ancestor("0189", 3)])
FIRST = Entry(ORDER, "boot", started=True)


@st.composite
def histories(draw: st.DrawFn) -> List[Entry]:
    entries = [FIRST]
    for _ in range(draw(st.integers(1, 4))):
        entries.append(
            replace(
                entries[-1],
                pid=draw(st.integers(1, 1 << 22)),
                born=draw(st.integers(0, 1 << 40)),
                cancel=draw(st.none() | st.text(max_size=20)),
                stop=draw(st.none() | st.text(max_size=20)),
                ended=draw(st.none() | st.just({"state": "FAILED", "reason": "a\nb"})),
            )
        )
    return entries


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(histories(), st.data())
def test_a_kill_at_any_byte_leaves_the_entry_before_or_the_one_that_was_written(
    tmp_path: Path, entries: List[Entry], data: st.DataObject
) -> None:
    folder = Folder(tmp_path / "w")
    folder.remove(ORDER.fence)
    path = folder.journal(ORDER.fence)
    for before, entry in zip([None, *entries], entries):
        known = path.read_bytes() if before is not None else b""
        folder.write(entry)
        assert load(path) == entry
        whole = path.read_bytes()
        cut = data.draw(st.integers(len(known), len(whole) - 1))
        path.write_bytes(whole[:cut])
        assert load(path) in (before, entry)
        if before is None:
            path.write_bytes(whole)
        else:  # the same process goes on: what is torn hides nothing
            folder.write(entry)
            assert load(path) == entry


def test_only_the_first_line_has_the_order(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "w")
    for pid in range(3):
        folder.write(replace(FIRST, pid=pid))
    lines = [json.loads(line) for line in folder.journal(ORDER.fence).read_text().splitlines() if line]
    assert ["order" in line for line in lines] == [True, False, False]


def test_zeros_that_a_power_cut_leaves_are_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "7.json"
    for text in (b"", b"\0" * 4096, b"\0" * 4096 + b"\n", b"[]\n"):
        path.write_bytes(text)
        assert load(path) is None
