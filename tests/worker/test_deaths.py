"""A run's process that dies is CRASHED within a second, with the reason and its last words; nothing survives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from perfect_client.execution.zygote import Zygote
from perfect_client.system.procs import process_name

from tests.worker.kit import children_of, eventually, is_alive


def pid_of(server, attempt):
    server.wait(lambda: attempt.facts)
    return attempt.facts[0]["pid"]


def test_a_segmentation_fault_is_named_and_its_last_words_are_kept(server, worker):
    _, end = server.run("segfaults")

    assert (end["type"], end["signal"]) == ("ProcessExited", signal.SIGSEGV)
    assert end["reason"] == "the process was killed by signal 11 (segmentation fault)"
    assert end["last_output"].startswith("about to fall\n")
    assert "Fatal Python error" in end["last_output"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, "the process exited without finishing (code 0)"),
        (3, "the process exited with code 3 without finishing"),
    ],
)
def test_an_exit_without_an_outcome_is_a_crash_whatever_its_code(server, worker, code, reason):
    _, end = server.run("leaves", code=code)

    assert (end["type"], end["code"], end["reason"]) == ("ProcessExited", code, reason)


def test_sys_exit_is_a_failure_that_the_flow_itself_reports(server, worker):
    _, end = server.run("exits", code=1)

    assert (end["type"], end["outcome"]) == ("RunEnded", "FAILED")


def test_a_killed_process_is_told_within_a_second(server, worker):
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")

    os.kill(pid_of(server, attempt), signal.SIGKILL)
    killed = time.monotonic()
    end = server.wait(lambda: attempt.end)

    assert attempt.seen_at[-1] - killed < 1
    assert end["reason"].startswith("the process was killed by signal 9 from outside")
    assert not end["cancelled"]


def test_a_stop_from_outside_is_not_a_cancel(server, worker):
    attempt = server.offer("tidies")
    server.until_line(attempt, "working")

    os.kill(pid_of(server, attempt), signal.SIGTERM)
    end = server.wait(lambda: attempt.end)

    assert "tidied" in attempt.lines
    assert (end["type"], end["cancelled"]) == ("ProcessExited", False)
    assert end["reason"] == "the process was stopped by signal 15 (SIGTERM) from outside"


def test_what_a_dead_run_started_is_gone_too(server, worker, tmp_path):
    attempt = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(attempt, "family")
    leader, away, forked = map(int, (tmp_path / "pids").read_text().split())

    os.kill(leader, signal.SIGKILL)

    server.wait(lambda: attempt.end)
    assert not is_alive(away)
    assert not is_alive(forked)


def test_a_daemon_left_behind_ends_with_its_run_and_does_not_delay_it(server, worker, tmp_path):
    _, end = server.run("leaves_a_daemon", path=str(tmp_path / "pid"))

    assert end["outcome"] == "COMPLETED"
    daemon = int((tmp_path / "pid").read_text())
    eventually(lambda: not is_alive(daemon), seconds=2)
    server.wait(lambda: server.free == 4)


def test_a_run_is_over_with_its_outcome_though_its_process_hangs_at_the_exit(server, worker):
    attempt, end = server.run("hangs_at_exit")

    assert end["outcome"] == "COMPLETED"
    eventually(lambda: not is_alive(pid_of(server, attempt)), seconds=8)
    server.wait(lambda: server.free == 4)


def test_the_death_of_the_zygote_hurts_no_run(server, worker, tmp_path):
    attempt = server.offer("waits_for", path=str(tmp_path / "go"))
    server.until_line(attempt, "waiting")

    zygote = worker.zygote
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: any(pid != zygote for pid in worker.zygotes))
    _, second = server.run("hello")
    (tmp_path / "go").touch()
    first = server.wait(lambda: attempt.end)

    assert first["outcome"] == second["outcome"] == "COMPLETED"
    assert attempt.lines[-1] == "after 2"


def test_the_child_in_reserve_may_die_and_ends_with_its_worker(server, worker):
    attempt, _ = server.run("hello")
    eventually(lambda: len(set(children_of(worker.zygote)) - {pid_of(server, attempt)}) == 1)
    (reserve,) = set(children_of(worker.zygote)) - {pid_of(server, attempt)}
    os.kill(reserve, signal.SIGKILL)
    eventually(lambda: not is_alive(reserve))

    _, end = server.run("hello")
    assert end["outcome"] == "COMPLETED"

    eventually(lambda: len(children_of(worker.zygote)) == 1)
    family = [worker.zygote, *children_of(worker.zygote)]
    worker.kill()
    eventually(lambda: not any(map(is_alive, family)), seconds=1)


def test_a_run_that_dies_after_its_zygote_is_told_all_the_same(server, worker):
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")
    os.kill(worker.zygote, signal.SIGKILL)

    os.kill(pid_of(server, attempt), signal.SIGKILL)

    assert server.wait(lambda: attempt.end)["signal"] == signal.SIGKILL


def test_the_supervisors_death_ends_its_runs_and_the_next_one_says_so(server, start_worker, tmp_path):
    worker = start_worker()
    counting = server.offer("counts_in_c")
    family = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(counting, "counting")
    server.until_line(family, "family")
    leader, away, forked = map(int, (tmp_path / "pids").read_text().split())
    counter = pid_of(server, counting)

    worker.kill()
    killed = time.monotonic()
    eventually(lambda: not any(map(is_alive, (counter, leader, away, forked))))
    assert time.monotonic() - killed < 1

    start_worker()
    server.wait(lambda: counting.end and family.end)
    assert counting.end["reason"] == family.end["reason"] == "the worker process was killed"
    assert server.joined[0].worker == server.joined[1].worker
    assert server.joined[0].boot != server.joined[1].boot


NO_CODE = {"targets": [], "script": "", "skip": [], "sources": ""}


def test_a_zygote_sweeps_for_runs_too_whose_end_it_had_told_to_a_supervisor_about_to_die(tmp_path):
    zygote = Zygote(control=None, bell=-1, worker="a-worker", runs=str(tmp_path), code=NO_CODE)
    zygote.ended.append(7)
    renames_itself = f"open('/proc/self/comm', 'w').write({process_name(7, 'a-worker')!r}); input()"
    with subprocess.Popen([sys.executable, "-c", renames_itself], stdin=subprocess.PIPE) as forked:
        eventually(lambda: _comm(forked.pid) == process_name(7, "a-worker"))

        zygote.sweep()

        assert forked.wait(2) == -signal.SIGKILL


def _comm(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_what_the_zygote_could_not_sweep_the_next_worker_does(server, start_worker, tmp_path):
    worker = start_worker()
    attempt = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(attempt, "family")
    leader, away, forked = map(int, (tmp_path / "pids").read_text().split())
    zygote = worker.zygote

    os.kill(zygote, signal.SIGSTOP)
    worker.kill()
    eventually(lambda: not is_alive(leader), seconds=1)  # by the kernel: nobody else was there
    os.kill(zygote, signal.SIGKILL)
    assert is_alive(away)
    start_worker()

    server.wait(lambda: attempt.end)
    assert not is_alive(away)
    assert not is_alive(forked)


def test_a_run_that_had_finished_is_not_called_crashed(server, start_worker):
    worker = start_worker()
    server.wait(lambda: server.flows)
    server._on_FactsRecorded, keep = lambda connection, batch: None, server._on_FactsRecorded
    attempt = server.offer("hello")
    spool = worker.home / "worker" / "w1" / "runs" / f"{attempt.fence}.facts"
    eventually(lambda: spool.exists() and b"RunEnded" in spool.read_bytes())

    worker.kill()
    server._on_FactsRecorded = keep
    start_worker()

    end = server.wait(lambda: attempt.end)
    assert (end["type"], end["outcome"]) == ("RunEnded", "COMPLETED")
