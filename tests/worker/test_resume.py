"""A run that resumes another one, in real processes: what completed is answered, whatever ended the run before."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.worker.kit import eventually


def outcomes(attempt):
    names = {fact["task"]: fact["name"] for fact in attempt.facts if fact["type"] == "TaskStarted"}
    return [f"{names[f['task']]} {f['outcome']}" for f in attempt.facts if f["type"] == "TaskEnded"]


def pid_of(attempt):
    return next(fact["pid"] for fact in attempt.facts if fact["type"] == "RunStarted")


def test_a_failed_run_goes_on_from_where_it_failed(server, worker, tmp_path):
    path = str(tmp_path / "there")
    first, _ = server.run("resumable", path=path)
    assert outcomes(first) == ["reads COMPLETED", "checks FAILED"]
    (tmp_path / "there").touch()

    second = server.resume(first, path=path)

    assert outcomes(second) == ["reads CACHED", "checks COMPLETED"]
    assert (second.end["outcome"], second.end["result"]) == ("COMPLETED", "'CONTENT'")
    assert "reading source" not in second.lines
    assert f"resuming run {first.run}: its completed tasks are answered by their results" in second.lines


CALC = "def total(n):\n    return n * 10\n"
RES = """
import calc
from perfect_client import flow, task

@task
def rows(n):
    return list(range(n))

@task
def compute(items):
    return calc.total(len(items))

@task
def check(value):
    if value > 10:
        raise ValueError("%d is too high" % value)
    return value

@flow
def repaired(n: int = 5):
    return check(compute(rows(n)))
"""


def test_a_task_runs_again_when_a_helper_in_another_file_was_repaired(server, start_worker, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "calc.py").write_text(CALC)
    (folder / "res.py").write_text(RES)
    worker = start_worker(targets=(folder,))
    first, _ = server.run("repaired")
    assert outcomes(first) == ["rows COMPLETED", "compute COMPLETED", "check FAILED"]
    worker.stop()
    (folder / "calc.py").write_text(CALC.replace("n * 10", "n * 2"))
    start_worker(targets=(folder,))
    server.wait(lambda: len(server.joined) == 2)

    second = server.resume(first)

    assert outcomes(second) == ["rows CACHED", "compute COMPLETED", "check COMPLETED"]
    assert second.end["result"] == "10"
    again = [line for line in second.lines if "runs again" in line]
    assert again == [f"task 'compute' runs again: total in calc.py has changed since run {first.run}"]


@pytest.mark.parametrize("victim", ["run", "worker"])
def test_what_completed_before_a_kill_is_kept(server, start_worker, tmp_path, victim):
    worker = start_worker()
    path = str(tmp_path / "there")
    first = server.offer("killable", path=path)
    server.until_line(first, "hanging")
    if victim == "run":
        os.kill(pid_of(first), signal.SIGKILL)
    else:
        worker.kill()
        worker = start_worker()
    server.wait(lambda: first.end)
    (tmp_path / "there").touch()

    second = server.resume(first, path=path)

    assert outcomes(second) == ["reads CACHED", "hangs_until COMPLETED"]


def test_another_worker_of_the_same_home_has_the_results_too(server, start_worker, tmp_path):
    path = str(tmp_path / "there")
    one = start_worker()
    first, _ = server.run("resumable", path=path)
    one.stop()
    start_worker(name="w2")
    server.wait(lambda: len(server.joined) == 2)

    second = server.resume(first, path=path)

    assert outcomes(second) == ["reads CACHED", "checks FAILED"]


def test_a_worker_without_the_results_runs_all_of_it_and_says_why(server, worker, tmp_path):
    path = str(tmp_path / "there")
    first, _ = server.run("resumable", path=path)
    shutil.rmtree(tmp_path / "results" / "runs")

    second = server.resume(first, path=path)

    assert outcomes(second) == ["reads COMPLETED", "checks FAILED"]
    assert [
        line for line in second.lines if f"resuming run {first.run}, but its results are not on this worker" in line
    ]


def test_from_a_task_on_all_run_again(server, worker, tmp_path):
    path = tmp_path / "there"
    path.touch()
    first, _ = server.run("resumable", path=str(path))

    assert outcomes(server.resume(first, before=1, path=str(path))) == ["reads COMPLETED", "checks COMPLETED"]
    assert outcomes(server.resume(first, before=2, path=str(path))) == ["reads CACHED", "checks COMPLETED"]


def test_the_results_are_their_owners_alone(server, worker, tmp_path):
    server.run("resumable", path="")
    eventually(lambda: not worker.runs)  # its process sweeps at its end

    kept = [tmp_path / "results", *(tmp_path / "results").rglob("*")]
    assert any(path.is_file() for path in (tmp_path / "results" / "runs").rglob("*"))
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}


def test_a_bound_that_cannot_be_is_refused_at_the_start(server, start_worker):
    worker = start_worker(PERFECT_RESULTS_MB="plenty")

    assert worker.process.wait(15) == 2
    assert "PERFECT_RESULTS_MB takes a number of megabytes, 0 or more, not 'plenty'" in worker.said()


def test_a_worker_that_is_to_keep_nothing_keeps_nothing(server, start_worker, tmp_path):
    start_worker(PERFECT_RESULTS_MB="0")
    server.run("resumable", path="")

    assert not (tmp_path / "results").exists()
