"""Whoever asked to be told of a run's end is told, once, also when the run's process is gone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from perfect_client.journal import journal

from tests.worker.kit import eventually, is_alive

FLOWS = Path(__file__).parent / "hook_flows.py"


@pytest.fixture
def start(start_worker):
    return lambda *options: start_worker(*options, targets=(FLOWS,))


@pytest.fixture
def notes(tmp_path):
    """What the hooks wrote down, line by line."""
    path = tmp_path / "notes"
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def offer(server, tmp_path):
    def offer(flow, **parameters):
        return server.offer(flow, path=str(tmp_path / "notes"), **parameters)

    return offer


def begun(server, attempt):
    server.until_line(attempt, "begun")
    return attempt.facts[0]["pid"]


def is_forgotten(worker):
    return lambda: worker.runs == []


# ------------------------------------------------------------------------------------------------- the process is gone


@pytest.mark.parametrize("how", ["killed", "segfault", "exits"])
def test_on_crashed_hears_of_a_process_that_died(server, start, offer, notes, how):
    worker = start()
    attempt = offer("ends", how=how)
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["ends CRASHED Crashed"]
    assert "hook heard Crashed" in attempt.lines
    assert "because " + attempt.end["reason"] in attempt.lines
    url = "%s/runs/%s/" % (server.url, attempt.run)
    assert "of %s by %s True %s" % (attempt.run, how, url) in attempt.lines


FULL_DISK = """
import errno, os, sys
from perfect_client.worker import crash_hooks as aftermath; from perfect_client.journal import journal
from perfect_client.cli import main
append, tries = journal._append, []
def full(fd, size, content):
    if b'"ended":{' in content:
        tries.append(1)
        if len(tries) <= int(sys.argv[2]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    append(fd, size, content)
journal._append, aftermath.FULL_DISK_S = full, 0.1
sys.exit(main(["worker", sys.argv[1], "--name", "w1", "--url", sys.argv[3], "--drain", "0"]))
"""


def test_hooks_wait_for_a_full_disk_and_the_flow_does_not_run_again(server, start_worker, offer, notes):
    """Without the journal's word the process would take its order for a start."""
    worker = start_worker(program=["-c", FULL_DISK, FLOWS, "3", server.url])
    attempt = offer("ends", how="killed")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["ends CRASHED Crashed"]
    assert [fact["type"] for fact in attempt.facts].count("RunStarted") == 1


def test_a_worker_ends_although_hooks_wait_for_a_full_disk(server, start_worker, offer, notes):
    worker = start_worker(program=["-c", FULL_DISK, FLOWS, "1000000", server.url])
    attempt = offer("ends", how="killed")
    server.wait(lambda: attempt.end)

    worker.process.terminate()

    assert worker.process.wait(20) == 0
    assert notes() == []


LATE_WORD = """
import sys, time
from perfect_client.worker.crash_hooks import CrashHooks
from perfect_client.system.channel import Channel
from perfect_client.cli import main
send = Channel.send
def send_late(self, message, fds=()):
    if "used" in message:
        time.sleep(0.3)
    return send(self, message, fds)
Channel.send = send_late
start = CrashHooks._start
CrashHooks._start = lambda self, process, after_s: start(self, process, 1.0)  # there is one in reserve by then
sys.exit(main(["worker", sys.argv[1], "--name", "w1", "--url", sys.argv[2]]))
"""


def test_hooks_may_be_over_before_their_zygote_hears_whose_process_it_was(server, start_worker, offer, notes):
    worker = start_worker(program=["-c", LATE_WORD, FLOWS, server.url])
    attempt = offer("ends", how="killed")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["ends CRASHED Crashed"]
    assert "were killed" not in worker.said()


def test_the_run_is_over_and_its_slot_free_before_its_hooks_are_called(server, start, offer, notes):
    worker = start("--grace", "60")
    attempt = offer("hangs_in_its_hook")

    server.wait(lambda: attempt.end)
    server.wait(lambda: "hanging" in attempt.lines)

    server.wait(lambda: server.free == 4)
    assert worker.process.poll() is None


def test_an_asynchronous_hook_is_called_too(server, start, offer, notes):
    worker = start()
    attempt = offer("told_later")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["told_later CRASHED Crashed"]


def test_on_failure_hears_of_a_run_that_was_killed_after_its_time_limit(server, start, offer, notes):
    worker = start("--grace", "0.2")
    attempt = offer("takes_too_long")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert attempt.end["timed_out"]
    assert notes() == ["takes_too_long FAILED TimedOut"]


def test_a_flow_without_hooks_costs_a_fork_and_no_line(server, start, offer, notes):
    worker = start()
    attempt = offer("has_no_hooks")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert attempt.lines == []


def test_a_hook_that_hangs_is_killed_after_the_grace_and_said(server, start, offer, notes):
    worker = start("--grace", "1")
    attempt = offer("hangs_in_its_hook")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["hangs_in_its_hook CRASHED Crashed"]
    assert attempt.lines[-1] == "the hooks of this run's end were killed after 1 s"
    assert server.run("told_later", path="/dev/null")[1]["code"] == 1


def test_a_hook_that_kills_its_process_harms_nothing(server, start, offer, notes):
    worker = start()
    attempt = offer("dies_in_its_hook")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["dies_in_its_hook CRASHED Crashed"]
    assert server.run("has_no_hooks", path="/dev/null")[1]["code"] == 1


def test_a_process_that_dies_in_another_hook_has_crashed_to_on_crashed(server, start, offer, notes):
    worker = start()
    attempt = offer("dies_after_its_end")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["dies_after_its_end COMPLETED Completed", "dies_after_its_end CRASHED Crashed"]


def test_the_hooks_of_the_sub_flow_that_it_was_in_are_called_first(server, start, offer, notes):
    worker = start()
    attempt = offer("calls_another", how="killed")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["ends CRASHED Crashed", "calls_another CRASHED Crashed"]
    sub = next(fact for fact in attempt.facts if fact["type"] == "SubRunStarted")
    assert any(line.startswith("of %s by killed" % sub["run"]) for line in attempt.lines)


def test_the_hooks_of_a_sub_flow_that_the_run_had_called_are_not_called_again(server, start, offer, notes):
    worker = start()
    attempt = offer("calls_one_that_hangs")
    begun(server, attempt)

    server.cancel(attempt, grace_s=0.5)

    assert server.wait(lambda: attempt.end)["type"] == "ProcessExited"
    eventually(is_forgotten(worker))
    assert notes() == ["hangs_in_its_own_hook CANCELLED Cancelled", "calls_one_that_hangs CANCELLED Cancelled"]


# ----------------------------------------------------------------------------------------- cancelled, and not cancelled


def test_a_cancelled_run_calls_on_cancellation_itself_and_nobody_else_does(server, start, offer, notes):
    worker = start()
    attempt = offer("ends", how="waits")
    begun(server, attempt)

    server.cancel(attempt)

    assert server.wait(lambda: attempt.end)["outcome"] == "CANCELLED"
    eventually(is_forgotten(worker))
    assert notes() == ["ends CANCELLED Cancelled"]


def test_on_cancellation_hears_of_a_cancelled_run_that_had_to_be_killed(server, start, offer, notes):
    worker = start()
    attempt = offer("ends", how="loops")
    begun(server, attempt)

    server.cancel(attempt, grace_s=0.2)

    assert server.wait(lambda: attempt.end)["cancelled"]
    eventually(is_forgotten(worker))
    assert notes() == ["ends CANCELLED Cancelled"]


def test_a_hook_that_hung_in_the_run_is_not_called_again(server, start, offer, notes):
    worker = start()
    attempt = offer("hangs_in_its_own_hook")
    begun(server, attempt)

    server.cancel(attempt, grace_s=0.5)

    assert server.wait(lambda: attempt.end)["type"] == "ProcessExited"
    eventually(is_forgotten(worker))
    assert notes() == ["hangs_in_its_own_hook CANCELLED Cancelled"]


def test_a_signal_from_outside_is_a_crash_to_the_hooks_too(server, start, offer, notes):
    worker = start()
    attempt = offer("ends", how="waits")

    os.kill(begun(server, attempt), signal.SIGTERM)

    reason = server.wait(lambda: attempt.end)["reason"]
    eventually(is_forgotten(worker))
    assert notes() == ["ends CRASHED Crashed"]
    assert "because " + reason in attempt.lines


@pytest.mark.parametrize("how", ["waits", "loops"])
def test_a_stop_of_the_worker_is_a_crash_to_the_hooks_as_it_is_to_the_page(server, start, offer, notes, how):
    worker = start("--grace", "0.5")
    attempt = offer("ends", how=how)
    begun(server, attempt)

    assert worker.stop() == 0

    assert attempt.end["reason"].startswith("the worker was stopped")
    assert notes() == ["ends CRASHED Crashed"]
    assert "because " + attempt.end["reason"] in attempt.lines
    assert worker.runs == []


def test_a_failure_is_told_by_the_run_alone(server, start, offer, notes):
    worker = start()
    attempt = offer("ends", how="fails")
    server.wait(lambda: attempt.end)

    eventually(is_forgotten(worker))

    assert notes() == ["ends FAILED Failed"]


# ----------------------------------------------------------------------------------------------- the worker is gone too


def test_the_next_life_of_a_killed_worker_calls_them_once(server, start, offer, notes):
    worker = start()
    attempt = offer("ends", how="waits")
    pid = begun(server, attempt)

    worker.kill()
    eventually(lambda: not is_alive(pid))
    assert notes() == []
    again = start()

    server.wait(lambda: attempt.end)
    eventually(is_forgotten(again))
    assert notes() == ["ends CRASHED Crashed"]
    again.kill()
    third = start()
    server.wait(lambda: len(server.joined) == 3)
    server.run("has_no_hooks", path="/dev/null")
    eventually(is_forgotten(third))
    assert notes() == ["ends CRASHED Crashed"]


def test_hooks_that_had_begun_are_not_called_again_by_the_next_life(server, start, offer, notes):
    worker = start("--grace", "60")
    attempt = offer("hangs_in_its_hook")
    server.wait(lambda: "hanging" in attempt.lines)

    worker.kill()
    again = start("--grace", "60")

    eventually(is_forgotten(again))
    assert notes() == ["hangs_in_its_hook CRASHED Crashed"]


def test_the_hooks_of_a_draining_worker_are_waited_for(server, start_worker, offer, notes):
    worker = start_worker("--drain", "600", targets=(FLOWS,))
    attempt = offer("ends", how="waits")
    pid = begun(server, attempt)
    worker.process.terminate()
    server.wait(lambda: server.draining)

    os.kill(pid, signal.SIGKILL)

    assert worker.process.wait(15) == 0
    assert notes() == ["ends CRASHED Crashed"]
    assert "hook heard Crashed" in attempt.lines


def test_the_newer_process_calls_those_of_a_killed_draining_one(server, start_worker, offer, notes):
    old = start_worker("--drain", "600", targets=(FLOWS,))
    attempt = offer("ends", how="waits")
    begun(server, attempt)
    old.process.terminate()
    server.wait(lambda: server.draining)
    announced = server.announced
    new = start_worker(targets=(FLOWS,))
    server.wait(lambda: server.announced > announced)

    old.kill()

    server.wait(lambda: attempt.end)
    eventually(is_forgotten(new))
    assert notes() == ["ends CRASHED Crashed"]


def test_a_journal_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "7.json"
    order = {"fence": 7, "run": "r", "flow": "f"}
    path.write_text(json.dumps({"order": order, "boot": "b", "started": True, "pid": 1, "born": 2, "cancel": None}))

    entry = journal.load(path)

    assert entry is not None
    assert (entry.stop, entry.ended) == (None, None)
