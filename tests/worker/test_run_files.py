"""A process in reserve makes the files of its run before it knows which run that is."""

from __future__ import annotations

import os

import pytest
from perfect_client.journal import spool, unfinished_lines
from perfect_client.journal.run_files import RunFiles, make_ahead

from tests.worker.kit import FLOWS, eventually


@pytest.fixture
def home(tmp_path):
    for name in ("runs", "ahead"):
        (tmp_path / name).mkdir()
    return tmp_path


def names_in(folder):
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_files_that_were_made_ahead_become_those_of_a_run(home):
    files = make_ahead(str(home / "runs"))
    files.belong_to(str(home / "runs" / "7"))
    files.facts.append(b"told")
    files.facts.sync()

    assert names_in(home / "ahead") == []
    assert names_in(home / "runs") == ["7.facts", "7.open"]
    assert spool.Reader(home / "runs" / "7.facts").last() == b"told"
    assert unfinished_lines.attach(str(home / "runs" / "7.open")) is not None


def test_without_a_run_nothing_stays(home):
    make_ahead(str(home / "runs")).remove()

    assert names_in(home / "ahead") == names_in(home / "runs") == []


def test_files_of_a_run_are_not_removed(home):
    files = make_ahead(str(home / "runs"))
    files.belong_to(str(home / "runs" / "7"))
    files.remove()

    assert names_in(home / "runs") == ["7.facts", "7.open"]


def test_where_nothing_can_be_made_ahead_the_run_makes_its_files(home):
    (home / "ahead").rmdir()

    assert make_ahead(str(home / "runs")) is None
    RunFiles(str(home / "runs" / "7"))
    assert names_in(home / "runs") == ["7.facts", "7.open"]


def ahead_of(worker):
    return worker.home / "worker" / worker.name / "ahead"


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_a_run_has_the_files_of_the_process_in_reserve(server, start_worker, start):
    worker = start_worker("--start", start, targets=[FLOWS])
    eventually(lambda: len(names_in(ahead_of(worker))) >= 2)
    before = set(names_in(ahead_of(worker)))
    server.run("hello")

    eventually(lambda: not before & set(names_in(ahead_of(worker))) or start == "fresh")
    eventually(lambda: worker.runs == [])
    assert worker.stop() == 0
    eventually(lambda: names_in(ahead_of(worker)) == [])


def test_a_run_starts_when_those_files_are_gone(server, start_worker):
    worker = start_worker(targets=[FLOWS])
    eventually(lambda: len(names_in(ahead_of(worker))) == 2)
    for name in names_in(ahead_of(worker)):
        (ahead_of(worker) / name).unlink()

    attempt, end = server.run("hello")

    assert end["outcome"] == "COMPLETED"
    assert attempt.facts[0]["type"] == "RunStarted"


def test_what_a_killed_worker_left_there_is_removed(server, start_worker):
    worker = start_worker(targets=[FLOWS])
    eventually(lambda: len(names_in(ahead_of(worker))) == 2)
    worker.kill()
    (ahead_of(worker) / "1-1.facts").touch()
    again = start_worker(targets=[FLOWS])

    eventually(lambda: len(names_in(ahead_of(again))) == 2)
    assert "1-1.facts" not in names_in(ahead_of(again))
