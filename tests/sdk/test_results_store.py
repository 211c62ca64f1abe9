"""The store on the worker's side: bounded, private, whole or not there, whatever lies in the folder."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client.errors import ConfigurationError
from perfect_client.storage import eviction, results
from perfect_client.storage.results import Envelope, FolderStore, bounds, default_store, pack, store_of, unpack
from perfect_client.storage.serializers import PickleSerializer, TooLarge, serializer_of

from tests.sdk.story import python


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "results")


def test_what_was_written_is_read(store: FolderStore) -> None:
    assert (store.read("k"), store.exists("k")) == (None, False)

    store.write("k", b"one")
    store.write("k", b"two")

    assert (store.read("k"), store.exists("k")) == (b"two", True)
    store.remove("k")
    store.remove("k")
    assert (store.read("k"), store.exists("k")) == (None, False)


def test_folder_and_files_are_their_owners_alone(store: FolderStore) -> None:
    old = os.umask(0)
    try:
        store.write("k", b"x")
    finally:
        os.umask(old)

    assert os.stat(store.path).st_mode & 0o777 == 0o700
    assert os.stat(store.path_of("k")).st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_write_to_is_not_read_from(tmp_path: Path) -> None:
    FolderStore(tmp_path / "shared").write("k", b"x")
    (tmp_path / "shared").chmod(0o777)

    assert FolderStore(tmp_path / "shared").read("k") is None


@given(st.text(max_size=300))
def test_every_text_is_a_key_and_never_leaves_the_folder(key: str) -> None:
    path = FolderStore("/srv/results").path_of(key)

    assert os.path.dirname(os.path.normpath(path)) == "/srv/results"
    assert len(os.path.basename(path)) <= 100


@pytest.mark.parametrize("key", ["sales-2026.json", "a_b"])
def test_a_plain_key_is_its_file_name(store: FolderStore, key: str) -> None:
    assert os.path.basename(store.path_of(key)) == key


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_result(store: FolderStore) -> None:
    store.write("k", b"whole")
    program = """
import os, sys
from perfect_client import results
os.replace = lambda *paths: os._exit(0)
results.FolderStore(sys.argv[1]).write("k", b"never there")
"""

    python("-c", program, store.path)

    assert store.read("k") == b"whole"
    assert len(os.listdir(store.path)) == 2  # and what the killed one left, until it is swept


def test_a_full_disk_is_an_os_error_and_leaves_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    store.make()
    monkeypatch.setattr(os, "replace", refuse)

    with pytest.raises(OSError, match="No space"):
        store.write("k", b"x")
    assert os.listdir(store.path) == []


def test_many_threads_and_processes_write_one_key_and_it_is_always_whole(store: FolderStore) -> None:
    program = """
import sys
from perfect_client.storage.results import FolderStore
store = FolderStore(sys.argv[1])
for number in range(200):
    store.write("k", bytes([65 + number % 20]) * 5000)
    assert len(set(store.read("k"))) == 1 and len(store.read("k")) == 5000
"""
    faults: List[BaseException] = []

    def one() -> None:
        try:
            python("-c", program, store.path)
        except BaseException as wrong:
            faults.append(wrong)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not faults
    assert os.listdir(store.path) == ["k"]


# ------------------------------------------------------------------------------------------------------------- bounds


def aged(store: FolderStore, key: str, size: int, age_s: float) -> None:
    store.write(key, b"x" * size)
    then = time.time() - age_s
    os.utime(store.path_of(key), (then, then))


def test_what_is_too_old_goes_and_then_the_oldest_until_the_rest_fits(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, max_bytes=40_000, max_age_s=1000)
    for key, size, age in [("ancient", 10, 2000), ("old", 400, 900), ("middle", 600, 500), ("new", 28_000, 1)]:
        aged(store, key, size, age)
    store.make(results.RUNS)
    run = tmp_path / results.RUNS / "run-1"
    run.write_bytes(b"x" * 700)
    os.utime(run, (time.time() - 700, time.time() - 700))

    store.sweep()

    assert sorted(os.listdir(tmp_path)) == ["middle", "new", results.RUNS]
    assert not run.exists()  # between old and middle


def test_small_files_count_with_their_disk_and_for_8_kib_at_least(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, max_bytes=20 * 8192)
    for number in range(30):
        aged(store, "k%02d" % number, 60, 100 - number)

    store.sweep()

    assert sorted(os.listdir(tmp_path)) == ["k%02d" % number for number in range(10, 30)]


def left_by_run(store: FolderStore, hour: str, name: str, age_s: float) -> Path:
    """A file of a run in the folder of its hour, last written so long ago."""
    file = Path(store.make(results.RUNS)) / hour / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def test_of_runs_whole_hours_go_and_of_the_last_one_a_part(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, max_bytes=15 * 8192)
    files = [
        left_by_run(store, hour, "run-%d" % number, age - number)
        for hour, age in (("2026-01-01-10", 9000), ("2026-01-01-11", 6000), ("2026-01-01-12", 3000))
        for number in range(10)
    ]

    store.sweep()
    store.sweep()

    assert [file.exists() for file in files] == [False] * 15 + [True] * 15
    assert not files[0].parent.exists()


def test_an_hour_that_has_not_changed_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, counted = FolderStore(tmp_path, max_bytes=1e9), []
    count = eviction._count
    monkeypatch.setattr(eviction, "_count", lambda path, *rest: counted.append(path) or count(path, *rest))
    old, new = (left_by_run(store, hour, "run-1", 100) for hour in ("2026-01-01-10", "2026-01-01-11"))

    store.sweep()
    left_by_run(store, new.parent.name, "run-2", 50)
    store.sweep()
    store.sweep()

    assert sorted(counted) == sorted(map(str, [old.parent, new.parent, new.parent]))


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b'{"2026-01-01-10": 7}', b'{"2026-01-01-10": [1, "x", null]}'])
def test_what_was_noted_of_the_hours_may_be_damaged(tmp_path: Path, garbage: bytes) -> None:
    store = FolderStore(tmp_path, max_bytes=8192)
    files = [left_by_run(store, "2026-01-01-1%d" % hour, "run-1", 900 - hour) for hour in range(3)]
    (tmp_path / results.RUNS / ".counted").write_bytes(garbage)

    store.sweep()

    assert [file.exists() for file in files] == [False, False, True]


def test_the_folder_of_a_run_is_the_hour_in_which_it_was_made() -> None:
    assert eviction.hour_of("019ad9c8-b200-7000-8000-000000a36520") == "2025-12-01-12"
    assert eviction.hour_of("00000000-0000-4000-8000-000000000000") == "others"
    assert eviction.hour_of("../x") == "others"


def test_a_store_sweeps_itself_as_it_grows(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, max_bytes=100_000)

    for number in range(300):
        store.write("k%d" % number, b"x" * 1000)

    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 110_000
    assert store.exists("k299")


def test_all_processes_together_sweep_once_in_a_while(tmp_path: Path) -> None:
    store, other = (FolderStore(tmp_path, max_age_s=1000) for _ in range(2))
    aged(store, "one", 1, 2000)
    store.sweep_if_due()
    aged(store, "two", 1, 2000)

    other.sweep_if_due()

    assert (store.exists("one"), store.exists("two")) == (False, True)


def test_a_users_own_folder_is_never_swept(store: FolderStore) -> None:
    aged(store, "k", 1, 1e9)

    store.sweep()

    assert store.exists("k")


def test_a_temporary_file_whose_writer_died_is_swept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, max_bytes=1e9)
    for name, age in ((".1.1.1.new", 7200), (".2.2.2.new", 60)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)

    store.sweep()

    assert os.listdir(tmp_path) == [".2.2.2.new"]


def test_the_bounds_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PERFECT_RESULTS_MB", "2")
    monkeypatch.setenv("PERFECT_RESULTS_DAYS", "0.5")

    store = default_store()

    assert (store.path, store.max_bytes, store.max_age_s) == (str(tmp_path / "results"), 2 << 20, 43200)
    assert bounds({}) == (1 << 30, 30 * 86400)


@pytest.mark.parametrize("text", ["-1", "much", "inf", "nan"])
def test_a_bound_that_cannot_be_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="PERFECT_RESULTS_MB takes a number of megabytes, 0 or more, not"):
        bounds({"PERFECT_RESULTS_MB": text})


# ---------------------------------------------------------------------------------------------------------- envelopes


@given(st.binary(), st.text(), st.none() | st.floats(0, 1e12))
def test_an_envelope_comes_back_as_it_was(data: bytes, key: str, expires: Any) -> None:
    envelope = Envelope(data, 5.0, expires)

    assert unpack(key, pack(key, envelope)) == envelope


@given(st.data())
def test_what_is_torn_or_changed_is_not_there(data: Any) -> None:
    raw = pack("k", Envelope(b"some result", 5.0, None))
    cut = data.draw(st.integers(0, len(raw) - 1))
    flipped = bytearray(raw)
    flipped[-1 - data.draw(st.integers(0, 10))] ^= 1

    assert unpack("k", raw[:cut]) is None
    assert unpack("k", bytes(flipped)) is None


@given(st.binary())
def test_a_foreign_file_is_not_there(raw: bytes) -> None:
    assert unpack("k", raw) is None
    assert unpack("k", results._MAGIC + raw) is None


def test_another_keys_result_is_not_there() -> None:
    assert unpack("other", pack("k", Envelope(b"x", 5.0, None))) is None


# --------------------------------------------------------------------------------------------- stores and serialisers


def test_a_store_is_a_path_or_an_object(tmp_path: Path) -> None:
    class Mine:
        def read(self, key: str) -> Any: ...
        def write(self, key: str, data: bytes) -> None: ...
        def exists(self, key: str) -> bool: ...
        def remove(self, key: str) -> None: ...

    mine = Mine()
    assert store_of(mine) is mine
    assert store_of(tmp_path).path == store_of(str(tmp_path)).path == str(tmp_path)


@pytest.mark.parametrize("given", [5, "", object()])
def test_what_is_no_store_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="a result storage is a folder's path or an object"):
        store_of(given)


@pytest.mark.parametrize("name", ["pickle", "json", "compressed/pickle", "compressed/json"])
def test_serialisers_go_by_the_names_that_people_know(name: str) -> None:
    serializer = serializer_of(name)

    assert serializer.loads(serializer.dumps({"a": [1, None, "ñ"]})) == {"a": [1, None, "ñ"]}


def test_a_compressed_result_is_smaller() -> None:
    value = ["the same"] * 1000

    assert len(serializer_of("compressed/json").dumps(value)) < len(serializer_of("json").dumps(value)) / 10


@pytest.mark.parametrize("given", ["yaml", "compressed/", "zip/pickle", 5, None])
def test_what_is_no_serialiser_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="a result serializer is 'pickle', 'json'"):
        serializer_of(given)


def test_a_huge_result_is_noticed_before_it_is_written_out() -> None:
    value = [b"x" * 1000] + [b"y%d" % number for number in range(100_000)]

    with pytest.raises(TooLarge):
        PickleSerializer().dumps_within(value, 500)
    assert PickleSerializer().dumps_within(value[:1], 2000) == PickleSerializer().dumps(value[:1])
