"""What a run's facts look like when nothing, or only the flow, goes wrong."""

from __future__ import annotations

import os
import signal

from perfect_client.system import procs

from tests.worker.kit import children_of, eventually, is_alive, name_of


def kinds(attempt):
    return [fact["type"] for fact in attempt.facts]


def test_a_run_tells_its_whole_story_in_order(server, worker):
    attempt, end = server.run("hello", name="ana")

    assert kinds(attempt) == ["RunStarted", "Logged", "TaskStarted", "TaskEnded", "RunEnded"]
    assert attempt.lines == ["hello ana"]
    assert (end["outcome"], end["result"]) == ("COMPLETED", "'42'")


def test_a_delivered_run_leaves_no_file_and_frees_its_slot(server, worker):
    server.run("hello")

    eventually(lambda: worker.runs == [])
    server.wait(lambda: server.free == 4)


def test_a_run_knows_its_mark_leads_its_session_and_has_no_stdin(server, worker):
    attempt, end = server.run("shows_itself")

    assert end["result"] == f"'{attempt.fence}:{server.joined[0].worker} True 0'"


def test_an_exception_is_a_failed_run_with_its_traceback(server, worker):
    _, end = server.run("fails")

    assert (end["outcome"], end["error"]) == ("FAILED", "ValueError: no such luck")
    assert "sample_flows.py" in end["traceback"]


def test_the_slots_told_fall_with_an_offer_and_rise_with_the_end(server, worker, tmp_path):
    server.wait(lambda: server.free == 4)

    attempt = server.offer("waits_for", path=str(tmp_path / "go"))
    server.wait(lambda: server.free == 3)
    (tmp_path / "go").touch()

    server.wait(lambda: attempt.end and server.free == 4)


def test_runs_go_on_side_by_side(server, worker, tmp_path):
    first, second = (server.offer("waits_for", path=str(tmp_path / "go")) for _ in range(2))
    server.until_line(first, "waiting")
    server.until_line(second, "waiting")

    (tmp_path / "go").touch()

    server.wait(lambda: first.end and second.end)
    assert first.lines == second.lines
    assert first.end["outcome"] == "COMPLETED"


def test_an_offer_of_an_unknown_flow_is_declined_with_a_sentence(server, worker):
    server.wait(lambda: server.flows)

    attempt = server.offer_unseen("nobody")

    assert server.wait(lambda: attempt.declined) == "this worker has no flow 'nobody'"


def test_nothing_starts_before_the_server_says_go(server, worker):
    server.auto_start = False
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)

    server.cancel(attempt)

    end = server.wait(lambda: attempt.end)
    assert kinds(attempt) == ["ProcessExited"]
    assert (end["cancelled"], end["reason"]) == (True, "cancelled before it started")


def test_a_second_go_starts_nothing_again(server, worker, tmp_path):
    attempt = server.offer("waits_for", path=str(tmp_path / "go"))
    server.until_line(attempt, "waiting")

    server.start(attempt)  # while it runs
    again, _ = server.run("hello")
    (tmp_path / "go").touch()
    server.wait(lambda: attempt.end)
    server.start(attempt)  # after its end
    last, _ = server.run("hello")

    assert [kinds(each).count("RunStarted") for each in (attempt, again, last)] == [1, 1, 1]
    assert attempt.lines.count("waiting") == 1


def test_the_start_takes_milliseconds(server, worker):
    server.run("hello")
    took = []
    for _ in range(5):
        attempt, _ = server.run("hello")
        took.append(attempt.seen_at[0] - attempt.started_at)

    assert min(took) < 0.1, took


def test_a_run_that_is_prepared_between_claim_and_start_runs_once(server, worker):
    server.run("hello")  # from here on a child is in reserve
    server.auto_start = False
    eventually(lambda: children_of(worker.zygote))
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)

    server.start(attempt)

    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
    assert [fact["type"] for fact in attempt.facts].count("RunStarted") == 1


def test_a_run_that_is_prepared_and_then_withdrawn_never_starts_and_leaves_nothing(server, worker):
    first, _ = server.run("hello")
    server.auto_start = False
    eventually(lambda: set(children_of(worker.zygote)) - {first.facts[0]["pid"]})
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)
    taken = procs.process_name(attempt.fence, server.joined[0].worker)

    server.drop(attempt)

    eventually(lambda: taken not in [name_of(pid) for pid in children_of(worker.zygote)])
    eventually(lambda: not worker.runs)
    assert not attempt.facts
    server.wait(lambda: server.free == 4)


def test_a_run_whose_prepared_child_dies_is_started_by_another(server, worker):
    first, _ = server.run("hello")
    server.auto_start = False
    eventually(lambda: set(children_of(worker.zygote)) - {first.facts[0]["pid"]})
    (reserve,) = set(children_of(worker.zygote)) - {first.facts[0]["pid"]}
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)
    os.kill(reserve, signal.SIGKILL)
    eventually(lambda: not is_alive(reserve))

    server.start(attempt)

    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
    assert attempt.facts[0]["pid"] != reserve
