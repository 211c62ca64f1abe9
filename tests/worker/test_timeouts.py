"""A deadline in the code ends the code, whatever it is doing, and the run says that its time was over."""

from __future__ import annotations

import time

import pytest

from tests.worker.kit import eventually, is_alive, tree_of

GRACE_S = 0.5


@pytest.fixture
def worker(start_worker):
    return start_worker("--grace", str(GRACE_S))


def ended(server, attempt):
    """How the run ended, and how long after it was busy."""
    server.until_line(attempt, "busy")
    began = time.monotonic()
    end = server.wait(lambda: attempt.end, 10)
    return end, time.monotonic() - began


def of_type(attempt, kind):
    return [fact for fact in attempt.facts if fact["type"] == kind]


@pytest.mark.parametrize("how", ["sleeps", "loops", "in_a_pool_thread", "waits_for_a_child"])
def test_a_flow_that_listens_ends_by_itself(server, worker, how):
    attempt = server.offer("takes_too_long", how=how)
    end, seconds = ended(server, attempt)

    assert (end["type"], end["outcome"]) == ("RunEnded", "FAILED")
    assert end["reason"] == "timed_out: Flow 'takes_too_long' exceeded its timeout of 0.3 second(s)"
    assert seconds < 0.3 + GRACE_S + 1
    eventually(lambda: not is_alive(attempt.facts[0]["pid"]), seconds=1)


@pytest.mark.parametrize("how", ["swallows", "counts_in_c", "ignores_stop"])
def test_a_flow_that_does_not_listen_is_killed_when_the_grace_is_over(server, worker, how):
    attempt = server.offer("takes_too_long", how=how)
    end, seconds = ended(server, attempt)

    assert (end["type"], end["timed_out"], end["cancelled"]) == ("ProcessExited", True, False)
    assert end["reason"].startswith("timed_out: Flow 'takes_too_long' exceeded its timeout of 0.3 second(s), killed")
    assert seconds < 0.3 + GRACE_S + 1
    eventually(lambda: not is_alive(attempt.facts[0]["pid"]))


def test_what_a_flow_has_started_goes_with_it(server, worker):
    attempt = server.offer("outlives_its_time_with_a_family")
    server.until_line(attempt, "busy")
    eventually(lambda: len(tree_of(attempt.facts[0]["pid"])) == 3)
    family = tree_of(attempt.facts[0]["pid"])

    server.wait(lambda: attempt.end, 10)

    eventually(lambda: not any(map(is_alive, family)), seconds=GRACE_S + 1)


def test_a_task_on_the_main_thread_is_interrupted(server, worker):
    attempt = server.offer("has_a_slow_task", how="sleeps")
    end, seconds = ended(server, attempt)

    assert [fact["outcome"] for fact in of_type(attempt, "TaskEnded")] == ["FAILED"]
    assert end["reason"] == "timed_out: Task 'too_slow' exceeded its timeout of 0.3 second(s)"
    assert seconds < 0.3 + GRACE_S + 1


def test_a_task_in_a_c_loop_takes_its_run_with_it(server, worker):
    end, seconds = ended(server, server.offer("has_a_slow_task", how="counts_in_c"))

    assert (end["type"], end["timed_out"]) == ("ProcessExited", True)
    assert "Task 'too_slow' exceeded its timeout" in end["reason"]
    assert seconds < 0.3 + GRACE_S + 1


def test_a_task_in_a_thread_is_failed_at_once_and_its_run_ended_when_the_thread_goes_on(server, worker):
    attempt = server.offer("has_a_slow_task_in_a_thread", how="sleeps")
    end, seconds = ended(server, attempt)

    assert "after it TimedOut" in attempt.lines
    assert [fact["outcome"] for fact in of_type(attempt, "TaskEnded")] == ["FAILED"]
    assert (end["type"], end["timed_out"]) == ("ProcessExited", True)
    assert seconds < 0.3 + GRACE_S + 1


def test_a_loop_that_is_blocked_is_interrupted(server, start_worker):
    start_worker("--grace", "5")

    end, seconds = ended(server, server.offer("blocks_its_loop"))

    assert (end["type"], end["outcome"]) == ("RunEnded", "FAILED")
    assert end["reason"].startswith("timed_out: Flow 'blocks_its_loop'")
    assert seconds < 3


def test_a_hook_hears_of_a_cancel(server, worker):
    attempt = server.offer("hears_of_its_end")
    server.until_line(attempt, "working")

    server.cancel(attempt, reason="cancelled by ana")
    end = server.wait(lambda: attempt.end)

    assert "hook Cancelled" in attempt.lines
    assert (end["outcome"], end["reason"]) == ("CANCELLED", "cancelled by ana")
