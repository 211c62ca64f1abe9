from __future__ import annotations

import signal

import pytest

from tests.worker.fakeserver import FakeServer
from tests.worker.kit import FLOWS, Program, Worker


@pytest.fixture
def server():
    made = FakeServer()
    yield made
    made.close()
    assert not made.faults


@pytest.fixture
def start_worker(tmp_path, server):
    """A function that starts a worker in this test's home."""
    started = []

    def start(*options, targets=(FLOWS,), at=None, **keywords):
        worker = Worker(tmp_path, at or server, targets, *options, **keywords)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait()


@pytest.fixture
def worker(start_worker):
    return start_worker()


@pytest.fixture
def start_program(tmp_path, server):
    """A function that starts a Python program which calls ``serve``."""
    started = []

    def start(file):
        started.append(Program(tmp_path, server, file))
        return started[-1]

    yield start
    for program in started:
        program.kill()
