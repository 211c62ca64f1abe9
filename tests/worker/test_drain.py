"""A worker that drains lets its runs end, while a newer process of the same name takes the new ones."""

from __future__ import annotations

import math
import os
import shutil
import signal

import pytest
from perfect_client.journal.journal import DEAD_KEPT, Entry, Folder, Occupied
from perfect_client.wire.messages import OfferRun
from perfect_client.worker import shutdown

from tests.worker.kit import eventually, is_alive


def pid_of(server, attempt):
    server.wait(lambda: attempt.facts)
    return attempt.facts[0]["pid"]


@pytest.fixture
def draining(server, start_worker):
    """A worker that drains without a limit as soon as it is told to, and a run of it that waits for the gate."""

    def start(gate, *options):
        worker = start_worker("--drain", "600", *options)
        attempt = server.offer("waits_for", path=str(gate))
        server.until_line(attempt, "waiting")
        worker.process.terminate()
        server.wait(lambda: server.draining)
        return worker, attempt

    return start


@pytest.fixture
def newer(server, start_worker):
    """Start another process of the worker, and wait until it has told its flows."""

    def start():
        announced = server.announced
        worker = start_worker()
        server.wait(lambda: server.announced > announced)
        return worker

    return start


# --------------------------------------------------------------------------------------------------------- one worker


@pytest.mark.parametrize(
    ("number", "drain_s", "expected"),
    [
        (signal.SIGTERM, None, math.inf),
        (signal.SIGINT, None, 0.0),
        (signal.SIGHUP, None, 0.0),
        (signal.SIGTERM, 0.0, 0.0),
        (signal.SIGINT, 5.0, 5.0),
    ],
)
def test_how_long_a_worker_drains_follows_the_option_or_else_the_signal(number, drain_s, expected):
    assert shutdown.drain_after(number, drain_s) == expected


def test_a_draining_worker_takes_nothing_new_and_ends_when_its_runs_have_ended(server, draining, tmp_path):
    worker, attempt = draining(tmp_path / "gate")
    late = server.offer_unseen("hello")

    server.wait(lambda: late.declined)
    assert server.draining[-1] == [attempt.fence]
    assert "waiting for 1 run, for at most 600 s (once more stops them)" in worker.said()
    (tmp_path / "gate").touch()
    assert worker.process.wait(15) == 0

    assert attempt.end["outcome"] == "COMPLETED"
    assert attempt.lines[-1] == "after 2"
    assert server.left
    assert worker.runs == []


def test_sigterm_alone_drains(server, start_worker, tmp_path):
    worker = start_worker(drain=None)
    attempt = server.offer("waits_for", path=str(tmp_path / "gate"))
    server.until_line(attempt, "waiting")

    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: "draining: no new run is taken; waiting for 1 run (once more stops them)" in worker.said())
    (tmp_path / "gate").touch()

    assert worker.process.wait(15) == 0
    assert attempt.end["outcome"] == "COMPLETED"


def test_ctrl_c_alone_stops(server, start_worker):
    worker = start_worker(drain=None)
    attempt = server.offer("tidies")
    server.until_line(attempt, "working")

    worker.process.send_signal(signal.SIGINT)

    assert worker.process.wait(15) == 0
    assert attempt.end["reason"] == "the worker was stopped"
    assert not server.draining


def test_a_worker_without_runs_does_not_drain(server, start_worker):
    worker = start_worker(drain=None)
    server.run("hello")
    eventually(lambda: worker.runs == [])

    worker.process.terminate()

    assert worker.process.wait(5) == 0
    assert not server.draining


def test_when_the_time_is_over_runs_are_stopped(server, start_worker, tmp_path):
    worker = start_worker("--drain", "0.3")
    attempt = server.offer("tidies")
    server.until_line(attempt, "working")

    assert worker.stop() == 0

    assert "tidied" in attempt.lines
    assert attempt.end["reason"] == "the worker was stopped"


def test_the_second_signal_stops_and_the_third_kills(server, draining, start_worker):
    worker = start_worker("--drain", "600")
    attempt = server.offer("ignores_stop")
    server.until_line(attempt, "deaf")
    worker.process.terminate()
    server.wait(lambda: server.draining)

    worker.process.terminate()
    eventually(lambda: "once more kills them" in worker.said())
    assert is_alive(pid_of(server, attempt))
    worker.process.terminate()

    assert worker.process.wait(5) == 0
    assert attempt.end["signal"] == signal.SIGKILL


def test_a_claimed_run_that_was_not_started_yet_is_not_lost_by_draining(server, start_worker):
    server.auto_start = False
    worker = start_worker("--drain", "600")
    attempt = server.offer("hello")
    server.wait(lambda: attempt.claimed)

    worker.process.terminate()
    server.wait(lambda: server.draining)
    server.start(attempt)

    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
    assert worker.process.wait(15) == 0


# -------------------------------------------------------------------------------------------------------- two of them


def test_a_newer_process_takes_new_runs_while_the_older_one_drains(server, draining, newer, tmp_path):
    old, attempt = draining(tmp_path / "gate")

    new = newer()
    _, end = server.run("hello")

    assert end["outcome"] == "COMPLETED"
    first, second = server.joined
    assert (second.worker, second.older, second.beside) == (first.worker, [first.boot], [attempt.fence])
    assert second.held == []
    assert is_alive(pid_of(server, attempt))
    (tmp_path / "gate").touch()
    assert old.process.wait(15) == 0
    assert attempt.end["outcome"] == "COMPLETED"
    assert server.run("hello")[1]["outcome"] == "COMPLETED"
    assert new.process.poll() is None
    assert sorted(path.name for path in (tmp_path / "worker" / "w1" / "boots").iterdir()) == [second.boot]


def test_a_cancel_reaches_the_process_that_holds_the_run(server, draining, newer, tmp_path):
    old, attempt = draining(tmp_path / "gate")
    newer()

    server.cancel(attempt)

    assert server.wait(lambda: attempt.end)["outcome"] == "CANCELLED"
    assert old.process.wait(15) == 0


def test_the_runs_of_a_killed_draining_process_are_told_by_the_newer_one(server, draining, newer, tmp_path):
    old, attempt = draining(tmp_path / "gate")
    new = newer()
    other = server.offer("waits_for", path=str(tmp_path / "other"))
    server.until_line(other, "waiting")

    old.kill()

    end = server.wait(lambda: attempt.end, seconds=5)
    assert end["reason"] == "the worker process was killed"
    eventually(lambda: not is_alive(pid_of(server, attempt)))
    assert {held.fence for held in server.joined[-1].held} == {attempt.fence, other.fence}
    (tmp_path / "other").touch()
    assert server.wait(lambda: other.end)["outcome"] == "COMPLETED"
    eventually(lambda: new.runs == [])


def test_what_a_killed_newer_process_ran_is_told_by_the_next_one_and_the_draining_one_goes_on(
    server, draining, newer, tmp_path
):
    old, attempt = draining(tmp_path / "gate")
    new = newer()
    family = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(family, "family")

    new.kill()
    newer()

    assert server.wait(lambda: family.end)["reason"] == "the worker process was killed"
    leader, away, forked = map(int, (tmp_path / "pids").read_text().split())
    eventually(lambda: not any(map(is_alive, (leader, away, forked))))
    assert is_alive(pid_of(server, attempt))
    (tmp_path / "gate").touch()
    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
    assert old.process.wait(15) == 0


def test_what_the_draining_one_started_survives_the_death_of_the_newer_one(server, start_worker, newer, tmp_path):
    old = start_worker("--drain", "600")
    family = server.offer("has_grandchildren", path=str(tmp_path / "pids"))
    server.until_line(family, "family")
    old.process.terminate()
    server.wait(lambda: server.draining)
    pids = list(map(int, (tmp_path / "pids").read_text().split()))

    new = newer()
    server.run("hello")
    zygote = new.zygote
    new.kill()
    eventually(lambda: not is_alive(zygote))  # it has swept what was left
    newer()
    server.run("hello")

    assert all(map(is_alive, pids))
    assert family.end is None
    server.cancel(family)
    server.wait(lambda: family.end)
    eventually(lambda: not any(map(is_alive, pids)))


def test_if_both_are_killed_the_next_one_tells_of_both(server, draining, newer, tmp_path):
    old, attempt = draining(tmp_path / "gate")
    new = newer()
    other = server.offer("waits_for", path=str(tmp_path / "other"))
    server.until_line(other, "waiting")

    old.kill()
    new.kill()
    newer()

    server.wait(lambda: attempt.end and other.end)
    assert attempt.end["reason"] == other.end["reason"] == "the worker process was killed"
    assert server.joined[-1].older == server.joined[-1].beside == []


def test_a_draining_process_that_could_not_deliver_leaves_it_to_the_newer_one(server, draining, newer, tmp_path):
    old, attempt = draining(tmp_path / "gate")
    server.close()
    (tmp_path / "gate").touch()
    assert old.process.wait(30) == 0

    server.open()
    newer()

    assert server.wait(lambda: attempt.end)["outcome"] == "COMPLETED"
    assert attempt.lines[-1] == "after 2"


def test_a_worker_keeps_its_name_to_itself_before_it_drains_and_where_the_server_is_too_old(
    server, start_worker, tmp_path
):
    server.lets_drain = False
    worker = start_worker("--drain", "600")
    attempt = server.offer("waits_for", path=str(tmp_path / "gate"))
    server.until_line(attempt, "waiting")
    assert start_worker().process.wait(15) == 2
    assert "is already running here (pid %d)" % worker.pid in worker.said()

    worker.process.terminate()
    server.wait(lambda: server.draining)

    assert start_worker().process.wait(15) == 2
    (tmp_path / "gate").touch()
    assert worker.process.wait(15) == 0


# ------------------------------------------------------------------------------------------------------- on its disk


def test_who_owns_an_attempt_is_told_by_locks(tmp_path):
    old, new = Folder(tmp_path), Folder(tmp_path)
    old.lock()
    with pytest.raises(Occupied):
        new.lock()
    old.write(Entry(OfferRun(3, "run-3", "hello"), old.boot, started=True))
    old.write(Entry(OfferRun(4, "run-4", "hello"), "long-gone", started=True))
    old.write(Entry(OfferRun(5, "run-5", "hello"), old.boot, started=False))

    old.hand_over()
    new.lock()

    assert new.living() == {old.boot}
    assert new.fences_of({old.boot}) == {3, 5}
    assert [entry.order.fence for entry in new.entries(new.living())] == [4]
    old.release()
    assert new.living() == set()
    assert [entry.order.fence for entry in new.entries()] == [3, 4]
    assert not new.journal(5).exists()
    assert os.listdir(tmp_path / "boots") == [new.boot]
    new.release()
    assert os.listdir(tmp_path / "boots") == []


def test_a_killed_process_is_known_to_be_dead_until_the_server_has_heard_it(tmp_path):
    killed, draining, new = Folder(tmp_path), Folder(tmp_path), Folder(tmp_path)
    killed.lock()
    os.close(killed._boot_lock)  # as the kernel does
    killed.hand_over()
    draining.lock()
    draining.hand_over()
    new.lock()

    assert new.dead() == new.dead() == [killed.boot]
    new.bury([killed.boot])
    assert new.dead() == []
    assert new.living() == {draining.boot}


def test_neither_a_copy_of_the_folder_nor_another_machine_proves_a_death(tmp_path):
    here = Folder(tmp_path / "here")
    here.lock()
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    copy = Folder(tmp_path / "copy")
    copy.lock()

    assert copy.dead() == []
    assert os.listdir(tmp_path / "copy" / "boots") == [copy.boot]

    elsewhere = tmp_path / "here" / "boots" / here.boot
    elsewhere.write_bytes(b"another-kernel %d\n" % elsewhere.stat().st_ino)
    os.close(here._boot_lock)
    here.hand_over()
    new = Folder(tmp_path / "here")
    new.lock()
    assert new.dead() == []


def test_of_many_killed_processes_the_newest_are_kept(tmp_path):
    killed = [Folder(tmp_path) for _ in range(DEAD_KEPT + 2)]
    for age, folder in enumerate(reversed(killed)):
        folder.lock()
        os.close(folder._boot_lock)
        folder.hand_over()
        os.utime(tmp_path / "boots" / folder.boot, (1000 - age, 1000 - age))
    new = Folder(tmp_path)
    new.lock()

    assert new.dead() == [folder.boot for folder in reversed(killed[2:])]
    assert len(os.listdir(tmp_path / "boots")) == DEAD_KEPT + 1
