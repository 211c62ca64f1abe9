"""A server that is away hurts no run; a worker that is not wanted says why."""

from __future__ import annotations

from perfect_client.wire import messages

from tests.worker.fakeserver import FakeServer
from tests.worker.kit import FLOWS, eventually


def test_a_run_never_notices_that_the_server_was_away(server, worker, tmp_path):
    attempt = server.offer("waits_for", path=str(tmp_path / "go"))
    server.until_line(attempt, "waiting")
    spool = tmp_path / "worker" / "w1" / "runs" / f"{attempt.fence}.facts"

    server.close()
    (tmp_path / "go").touch()
    eventually(lambda: b"RunEnded" in spool.read_bytes())
    server.open()

    end = server.wait(lambda: attempt.end)
    assert end["outcome"] == "COMPLETED"
    assert attempt.lines == ["before 0", "before 1", "before 2", "waiting", "after 0", "after 1", "after 2"]
    assert [held.fence for held in server.joined[-1].held] == [attempt.fence]
    eventually(lambda: worker.runs == [])


def test_a_run_that_the_server_gave_away_is_killed_when_the_worker_is_back(server, worker):
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")

    server.close()
    server.attempts.clear()
    server.open()

    server.wait(lambda: len(server.joined) == 2)
    eventually(lambda: worker.runs == [])


def test_the_worker_waits_for_a_server_that_is_not_there_yet(start_worker, tmp_path):
    server = FakeServer()
    server.close()
    worker = start_worker(at=server)
    eventually(lambda: "no connection to" in worker.said())

    server.open()

    assert server.run("hello")[1]["outcome"] == "COMPLETED"
    server.close()


def test_a_refused_token_is_one_sentence_and_exit_2(server, start_worker):
    worker = start_worker(token="wrong")

    assert worker.process.wait(10) == 2
    assert f"refused by {server.url}: the server refused the token" in worker.said()


def test_a_refused_worker_repeats_the_servers_sentence(start_worker):
    server = FakeServer(refuse="'w1' is connected from another machine")
    worker = start_worker(at=server)

    assert worker.process.wait(10) == 2
    assert "'w1' is connected from another machine" in worker.said()
    server.close()


def test_a_second_worker_of_the_same_name_is_refused(server, start_worker):
    first = start_worker()
    server.wait(lambda: server.flows)

    second = start_worker()

    assert second.process.wait(10) == 2
    assert f"a worker named 'w1' is already running here (pid {first.pid})" in second.said()


def test_a_torn_spool_is_mended_before_the_end_is_written(server, start_worker):
    worker = start_worker()
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")
    spool = worker.home / "worker" / "w1" / "runs" / f"{attempt.fence}.facts"

    worker.kill()
    with spool.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    start_worker()

    assert server.wait(lambda: attempt.end)["reason"] == "the worker process was killed"
    assert attempt.lines == ["spinning"]


def test_an_attempt_that_may_have_started_is_told_to_have_ended_at_the_next_start(server, start_worker):
    server.auto_start = False
    worker = start_worker(targets=[FLOWS])
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)

    worker.kill()
    start_worker()

    assert server.wait(lambda: attempt.end)["reason"] == "the worker process was killed"
    assert [fact["type"] for fact in attempt.facts] == ["ProcessExited"]


def test_held_attempts_are_told_with_their_numbers(server, start_worker):
    worker = start_worker()
    attempt = server.offer("spins")
    server.until_line(attempt, "spinning")

    worker.kill()
    start_worker()

    server.wait(lambda: len(server.joined) == 2)
    assert server.joined[1].held == [messages.Held(attempt.fence, attempt.run, facts=3, output=0, started=True)]


def test_a_run_whose_file_cannot_be_written_harms_no_other_and_goes_on_when_it_can(server, worker, tmp_path):
    """Here a folder is in the file's place."""
    server.auto_start = False
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)
    order = tmp_path / "worker" / "w1" / "runs" / f"{attempt.fence}.order"
    order.unlink(missing_ok=True)
    order.mkdir()
    server.start(attempt)
    eventually(lambda: "an error in the worker, which goes on" in worker.said())
    server.auto_start = True

    assert server.run("hello")[1]["outcome"] == "COMPLETED"
    order.rmdir()
    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
