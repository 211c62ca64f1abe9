"""Cancel kills, whatever the code is doing, and says how."""

from __future__ import annotations

import signal
import time

import pytest

from tests.worker.kit import eventually, is_alive, tree_of

GRACE_S = 0.3
WAYS = {  # what the code is doing, and of how many processes it is then
    "sleeps": 1,
    "loops": 1,
    "swallows": 1,
    "counts_in_c": 1,
    "ignores_stop": 1,
    "in_a_pool_thread": 1,
    "waits_for_a_child": 2,
    "waits_for_a_grandchild": 3,
}


@pytest.mark.parametrize("how", WAYS)
def test_whatever_the_code_is_doing_all_of_it_is_gone_when_the_grace_is_over(server, worker, how):
    attempt = server.offer("does", how=how)
    server.until_line(attempt, "busy")
    eventually(lambda: len(tree_of(attempt.facts[0]["pid"])) == WAYS[how])
    family = tree_of(attempt.facts[0]["pid"])

    server.cancel(attempt, grace_s=GRACE_S)
    began = time.monotonic()
    eventually(lambda: not any(map(is_alive, family)))

    assert time.monotonic() - began < GRACE_S + 1
    end = server.wait(lambda: attempt.end)
    assert (end.get("outcome"), end["reason"]) == ("CANCELLED", "cancelled by ana") or (
        end["cancelled"] and end["reason"] == "killed after the grace of 0.3 s"
    )


def test_a_cancelled_flow_tidies_up_and_carries_the_servers_reason(server, worker):
    attempt = server.offer("tidies")
    server.until_line(attempt, "working")

    server.cancel(attempt, reason="cancelled by ana")
    end = server.wait(lambda: attempt.end)

    assert "tidied" in attempt.lines
    assert (end["type"], end["outcome"], end["reason"]) == ("RunEnded", "CANCELLED", "cancelled by ana")


def ends_of_tasks(attempt):
    return {(fact["outcome"], fact["error"]) for fact in attempt.facts if fact["type"] == "TaskEnded"}


def test_what_a_cancelled_run_was_in_is_cancelled(server, worker):
    attempt = server.offer("calls_one_that_sleeps")
    server.until_line(attempt, "working")

    server.cancel(attempt, reason="cancelled by ana")
    end = server.wait(lambda: attempt.end)

    assert (end["type"], end["outcome"], end["reason"]) == ("RunEnded", "CANCELLED", "cancelled by ana")
    assert {outcome for outcome, _ in ends_of_tasks(attempt)} == {"CANCELLED"}


def test_what_a_run_was_in_when_its_worker_ended_has_crashed_with_it(server, start_worker):
    """A sub-flow is a run of its own: it must not say that somebody has cancelled it."""
    worker = start_worker("--drain", "0")
    attempt = server.offer("calls_one_that_sleeps")
    server.until_line(attempt, "working")

    worker.process.terminate()
    end = server.wait(lambda: attempt.end)

    assert (end["type"], end["cancelled"]) == ("ProcessExited", False)
    assert ends_of_tasks(attempt) == {("CRASHED", end["reason"])}


def test_an_endless_loop_ends_at_once(server, worker):
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")

    server.cancel(attempt)
    server.cancel(attempt)

    assert server.wait(lambda: attempt.end, 3)["outcome"] == "CANCELLED"


def test_a_loop_in_c_is_killed_when_the_grace_is_over(server, worker):
    attempt = server.offer("counts_in_c")
    server.until_line(attempt, "counting")

    server.cancel(attempt, grace_s=0.3)
    end = server.wait(lambda: attempt.end, 3)

    assert (end["type"], end["cancelled"], end["signal"]) == ("ProcessExited", True, signal.SIGKILL)
    assert end["reason"] == "killed after the grace of 0.3 s"


def test_a_flow_that_ignores_the_signal_is_killed_when_the_grace_is_over(server, worker):
    attempt = server.offer("ignores_stop")
    server.until_line(attempt, "deaf")

    server.cancel(attempt, grace_s=0.3)

    assert server.wait(lambda: attempt.end, 3)["reason"] == "killed after the grace of 0.3 s"


def test_grandchildren_die_with_a_cancelled_run(server, worker, tmp_path):
    attempt = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(attempt, "family")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]

    server.cancel(attempt)
    server.wait(lambda: attempt.end)

    eventually(lambda: not any(map(is_alive, pids)), seconds=2)


def test_a_dropped_run_is_killed_and_forgotten(server, worker):
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")
    pid = attempt.facts[0]["pid"]

    server.drop(attempt)

    eventually(lambda: not is_alive(pid) and worker.runs == [])
    server.wait(lambda: server.free == 4)
    assert attempt.end is None


def test_a_stopped_worker_stops_its_runs_and_says_goodbye(server, worker):
    attempt = server.offer("tidies")
    server.until_line(attempt, "working")

    assert worker.stop() == 0

    end = server.wait(lambda: attempt.end)
    assert "tidied" in attempt.lines
    assert (end["type"], end["reason"], end["cancelled"]) == ("ProcessExited", "the worker was stopped", False)
    server.wait(lambda: server.left)
    assert worker.runs == []


def test_a_second_signal_does_not_wait_for_the_grace(server, worker):
    attempt = server.offer("ignores_stop")
    server.until_line(attempt, "deaf")

    worker.process.terminate()
    eventually(lambda: "once more kills them" in worker.said())
    worker.process.terminate()

    assert worker.process.wait(5) == 0
    assert server.wait(lambda: attempt.end)["reason"] == "the worker was stopped"


def test_tasks_in_threads_tidy_up_too(server, worker):
    attempt = server.offer("pooled")
    ways = ["spins", "spins", "naps", "naps", "prints", "waits", "sub-flow"]
    server.wait(
        lambda: (
            sorted(line for line in attempt.lines if line.startswith("busy"))
            == sorted([*(f"busy {way}" for way in ways), "busy with a deadline", "busy in a loop"])
        )
    )

    server.cancel(attempt)
    end = server.wait(lambda: attempt.end)

    tidied = sorted(line for line in attempt.lines if line.startswith("tidied"))
    assert tidied == sorted([*(f"tidied {way}" for way in ways), "tidied with a deadline", "tidied in a loop"])
    assert "hook Cancelled" in attempt.lines
    assert (end["type"], end["outcome"], end["reason"]) == ("RunEnded", "CANCELLED", "cancelled by ana")
    outcomes = {fact["outcome"] for fact in attempt.facts if fact["type"] == "TaskEnded"}
    assert outcomes == {"CANCELLED"}


def test_a_thread_that_sleeps_in_c_is_killed_when_the_grace_is_over_and_the_others_tidy_up(server, worker):
    attempt = server.offer("pooled_in_c")
    server.until_line(attempt, "busy c")
    server.until_line(attempt, "busy naps")

    server.cancel(attempt, grace_s=1.0)
    end = server.wait(lambda: attempt.end, 5)

    assert "tidied naps" in attempt.lines and "tidied c" not in attempt.lines
    assert (end["type"], end["reason"]) == ("ProcessExited", "killed after the grace of 1 s")
