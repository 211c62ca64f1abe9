"""What was written last is in the log: once, whole, in its place, however the process ends."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker.kit import children_of, eventually, name_of
from tests.worker.last_words import WAYS_TO_DIE, WAYS_TO_WRITE

FLOWS = Path(__file__).parent / "last_words.py"
ENDS_BADLY = sorted(WAYS_TO_DIE.keys() - {"sleeps", "returns"})
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=60)


@pytest.fixture
def worker(start_worker):
    return start_worker(targets=[FLOWS])


def printed(attempt):
    """What the code itself wrote: not our word on how it failed, nor the interpreter's on where it crashed."""
    ours = ("Flow ", "Task ", "Fatal Python error", "Current thread", "Thread 0x", "  File", "", "Extension modules")
    return [line for line in attempt.lines if not line.startswith(ours[:-2]) and line and ours[-1] not in line]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(WAYS_TO_WRITE)), st.sampled_from(ENDS_BADLY), TEXTS.map("last {}".format), st.booleans())
def test_the_last_text_is_in_the_log_once_however_the_process_ends(server, worker, write, die, text, in_a_task):
    flow = "last-words-of-a-task" if in_a_task else "last-words"
    attempt, _ = server.run(flow.replace("-", "_"), write=write, die=die, text=text)

    eventually(lambda: text in attempt.lines)
    first = [] if in_a_task else ["first"]
    assert [line for line in printed(attempt) if line in ("first", text)] == [*first, text]


@pytest.mark.parametrize("write", sorted(WAYS_TO_WRITE))
def test_the_last_text_before_a_deadline_is_in_the_log(server, worker, write):
    attempt, _ = server.run("last_words_in_time", write=write, text="last words")

    eventually(lambda: "last words" in attempt.lines)
    assert printed(attempt) == ["first", "last words"]


@pytest.mark.parametrize("write", sorted(WAYS_TO_WRITE))
def test_the_last_text_before_a_cancel_is_in_the_log(server, worker, write):
    attempt = server.offer("last_words", write=write, die="sleeps", text="last words")
    server.until_line(attempt, "first")
    server.cancel(attempt)
    server.wait(lambda: attempt.end)

    eventually(lambda: "last words" in attempt.lines)
    assert printed(attempt) == ["first", "last words"]


@pytest.mark.parametrize("write", ["flushed", "in pieces", "raw", "by a child"])
def test_an_unfinished_line_is_shown_within_a_moment_and_becomes_one_line(server, worker, tmp_path, write):
    attempt = server.offer("says_then_waits", write=write, text="loading... ", path=str(tmp_path / "go"))
    server.until_line(attempt, "first")
    since = time.monotonic()

    eventually(lambda: attempt.open_lines == [("loading... ", 20)])
    took = time.monotonic() - since
    (tmp_path / "go").touch()
    server.wait(lambda: attempt.end)

    assert took < 2
    assert attempt.lines == ["first", "loading... done"]
    assert attempt.open_lines == []


def test_a_bar_is_shown_as_it_stands_and_becomes_one_line(server, worker, tmp_path):
    attempt = server.offer("bar", path=str(tmp_path / "go"), refreshes=5000)

    eventually(lambda: attempt.open_lines == [("4999%|", 30)])
    (tmp_path / "go").touch()
    server.wait(lambda: attempt.end)

    assert attempt.lines == ["100%|"]


@pytest.mark.parametrize("write", ["flushed", "written", "raw", "by a child"])
def test_an_unfinished_line_outlives_the_worker(server, start_worker, tmp_path, write):
    worker = start_worker(targets=[FLOWS])
    attempt = server.offer("says_then_waits", write=write, text="half a ", path=str(tmp_path / "never"))
    server.until_line(attempt, "first")
    if write != "written":
        eventually(lambda: attempt.open_lines)
    worker.kill()

    start_worker(targets=[FLOWS])
    server.wait(lambda: attempt.end)

    assert attempt.lines == ["first", "half a "]


@pytest.mark.parametrize("how", ["raw", "by a child"])
def test_raw_output_stands_in_its_place_among_the_printed_lines(server, worker, how):
    attempt, _ = server.run("in_turns", times=200, how=how)

    eventually(lambda: len(attempt.lines) == 401)
    expected = [line for n in range(200) for line in (f"told {n}", f"raw {n}")]
    assert attempt.lines == [*expected, "end"]
    times = [fact["time"] for fact in attempt.facts if fact["type"] == "Logged"]
    assert times == sorted(times)


def test_the_order_survives_lost_connections_and_the_workers_death(server, start_worker):
    worker = start_worker(targets=[FLOWS])
    attempt = server.offer("in_turns", times=300, how="by a child")
    for seen in (50, 150, 250):
        eventually(lambda seen=seen: len(attempt.lines) > seen)
        for connection in list(server._connections):
            connection.cut()
    eventually(lambda: len(attempt.lines) > 400)
    worker.kill()
    shown = list(attempt.lines)
    start_worker(targets=[FLOWS])
    server.wait(lambda: attempt.end)

    whole = [line for n in range(300) for line in (f"told {n}", f"raw {n}")] + ["end"]
    assert shown == whole[: len(shown)] and attempt.lines[: len(shown)] == shown
    # What the worker had not yet taken from the pipe when it was killed is gone with it, but for its number, while the
    # run's process may tell a few lines more until the kernel ends it: so behind the last raw line none follows.
    lines = [line for line in attempt.lines if " of output " not in line]
    taken = sum(line.startswith("raw ") for line in lines)
    kept = [line for line in whole if not line.startswith("raw ") or int(line.split()[1]) < taken]
    assert lines == kept[: len(lines)]


@pytest.fixture
def workers(start_worker):
    """One after the other: each starts when the one before was killed."""
    found = [start_worker(targets=[FLOWS])]

    def replace():
        found[-1].kill()
        found.append(start_worker(targets=[FLOWS]))

    return found, replace


def raw_and_lost(attempt):
    """How many raw lines are kept, of each pipe the first ones in order, and how many are said to be lost."""
    told = [fact for fact in attempt.facts if fact["type"] == "Logged"]
    kept = [int(fact["message"].split()[1]) for fact in told if fact["message"].startswith("raw ")]
    out, err = [n for n in kept if n % 2 == 0], [n for n in kept if n % 2]
    assert out == [2 * n for n in range(len(out))] and err == [2 * n + 1 for n in range(len(err))]
    return len(kept), sum(fact.get("dropped", 0) for fact in told)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2000), st.sampled_from(["", "half", "half\nand "]), st.booleans())
def test_what_stood_in_the_pipes_when_the_worker_was_killed_is_counted(
    server, workers, tmp_path, lines, rest, stands_still
):
    found, replace_worker = workers
    ledger = tmp_path / uuid.uuid4().hex
    attempt = server.offer("floods_raw", path=str(ledger), lines=lines, rest=rest)
    eventually(lambda: ledger.exists())
    if stands_still:
        os.kill(found[-1].pid, signal.SIGSTOP)
    eventually(lambda: ledger.read_text().endswith("all\n"))
    replace_worker()
    server.wait(lambda: attempt.end)

    kept, lost = raw_and_lost(attempt)
    others = sum(line in ("half", "and ") for line in attempt.lines)
    assert kept + others + lost == lines + 2 * len(rest.splitlines())


def test_the_next_worker_waits_for_the_count(server, start_worker, tmp_path):
    worker, ledger = start_worker(targets=[FLOWS]), tmp_path / "ledger"
    attempt = server.offer("floods_raw", path=str(ledger), lines=100)
    eventually(lambda: attempt.started and ledger.exists() and ledger.read_text().endswith("all\n"))
    eventually(lambda: len(attempt.lines) == 100)
    zygote = worker.zygote
    (run,) = [pid for pid in children_of(zygote) if name_of(pid).startswith("pf")]
    for pid in (zygote, worker.pid):
        os.kill(pid, signal.SIGSTOP)
    Path(f"/proc/{run}/fd/1").write_text("one more\n")
    worker.kill()
    again = start_worker(targets=[FLOWS])
    eventually(lambda: (worker.home / "worker" / "w1" / "lock").read_text() == f"{again.pid}\n")
    os.kill(zygote, signal.SIGCONT)
    server.wait(lambda: attempt.end)

    assert raw_and_lost(attempt) == (100, 1)
    assert "1 line of output is lost: the worker was killed before it had read it" in attempt.lines


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 0.2))
def test_of_a_flood_that_ends_with_its_worker_what_is_lost_is_counted(server, workers, tmp_path, after):
    ledger = tmp_path / uuid.uuid4().hex
    attempt = server.offer("floods_raw", path=str(ledger), lines=1_000_000)
    eventually(lambda: ledger.exists())
    time.sleep(after)
    workers[1]()
    server.wait(lambda: attempt.end)

    kept, lost = raw_and_lost(attempt)
    written = len(ledger.read_text().split())
    assert kept + lost in (written, written - 1)  # it may have been killed between the file and the pipe


@pytest.mark.parametrize("long", [False, True])
def test_lines_of_child_processes_stay_whole(server, worker, long):
    lines = 30 if long else 100
    attempt, _ = server.run("children_print", lines=lines, long=long)

    eventually(lambda: len(attempt.lines) >= 4 * lines)
    for name in "abcd":
        mine = [line for line in attempt.lines if line.startswith(name + " ")]
        expected = [f"{name} {n} {name * 9000}" if long else f"{name} line {n}" for n in range(lines)]
        assert mine == expected
    assert len(attempt.lines) == 4 * lines


@pytest.mark.parametrize("die", ["killed", "leaves 0", "returns", "segfault", "raises"])
def test_of_a_log_that_does_not_fit_head_and_tail_are_kept(server, start_worker, die):
    start_worker(targets=[FLOWS.with_name("small_spool.py")])
    attempt, _ = server.run("floods", lines=20_000, die=die)

    eventually(lambda: any(line.startswith("line 19999 ") for line in attempt.lines))
    told = [fact for fact in attempt.facts if fact["type"] == "Logged" and fact["message"].startswith(("line ", "1"))]
    (gap,) = [n for n, fact in enumerate(told) if fact.get("dropped")]
    numbers = [int(line.split()[1]) for line in attempt.lines if line.startswith("line ")]
    head, tail = numbers[:gap], numbers[gap:]
    assert head == list(range(gap)) and len(head) > 300
    assert tail == list(range(gap + told[gap]["dropped"], 20_000)) and len(tail) > 300


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 0.3))
def test_a_flood_that_is_killed_has_an_exact_count_of_what_is_missing(server, small_worker, after):
    attempt = server.offer("floods_until_killed", after=after)
    server.wait(lambda: attempt.end)

    numbers, missing = [], 0
    for fact in attempt.facts:
        if fact.get("dropped"):
            missing += fact["dropped"]
            assert fact["dropped"] == int(fact["message"].split()[0])
        elif fact["type"] == "Logged":
            numbers.append(int(fact["message"].split()[1]) - missing)
    assert numbers == list(range(len(numbers)))


@pytest.fixture
def small_worker(start_worker):
    return start_worker(targets=[FLOWS.with_name("small_spool.py")])
