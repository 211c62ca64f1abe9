"""A worker finds the server of its home and that server's token, and sends the token to no other address."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
from perfect_client.wire import address
from perfect_client.worker import main as worker

from tests.worker.fakeserver import FakeServer
from tests.worker.kit import FLOWS, Worker

LOCAL, PUBLIC = "http://127.0.0.1:9123", "https://perfect.example.org"


def written(home, pid=None, started_at=None, url=LOCAL):
    """The files of a server, by default of this very process; the environment of a worker beside it."""
    facts = {"pid": pid or os.getpid(), "url": url, "public": PUBLIC, "started_at": started_at or time.time()}
    (home / "server.json").write_text(json.dumps(facts))
    (home / "worker-token").write_text("pft_local\n")
    return {"PERFECT_HOME": str(home)}


def a_dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_the_server_of_this_home_is_found_with_its_token(tmp_path):
    setup = worker.configure([str(FLOWS)], environ=written(tmp_path))

    assert (setup.url, setup.token) == (LOCAL, "pft_local")


def test_the_option_comes_first_then_the_environment_then_the_server_here_then_the_usual_address(tmp_path):
    environ = written(tmp_path)
    elsewhere = dict(environ, PERFECT_URL="http://there")

    assert address.find_server("http://given", elsewhere).url == "http://given"
    assert address.find_server(None, elsewhere).url == "http://there"
    assert address.find_server(None, environ).url == LOCAL
    assert address.find_server(None, {"PERFECT_HOME": str(tmp_path / "empty")}).url == address.DEFAULT_URL


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"pid": "x", "url": "y"}', '{"pid": 1}', '{"pid": -1, "url": "x"}']
)
def test_a_file_that_says_nothing_of_use_is_as_none(tmp_path, content):
    (tmp_path / "server.json").write_text(content)

    assert address.find_server(None, {"PERFECT_HOME": str(tmp_path)}) == address.Server(address.DEFAULT_URL)


def test_a_server_that_was_killed_is_not_used_and_told_in_a_sentence(tmp_path):
    environ = written(tmp_path, pid=a_dead_pid())

    found = address.find_server(None, environ)

    assert found.url == address.DEFAULT_URL
    assert "names a server that does not run any more" in found.note
    assert found.note in worker.warnings_about(environ)
    assert worker.warnings_about(environ, "http://given") == []


def test_a_process_that_got_the_number_of_a_dead_server_is_not_taken_for_it(tmp_path):
    environ = written(tmp_path, started_at=time.time() - 86_400)  # this process was born later

    assert "does not run any more" in address.find_server(None, environ).note


@pytest.mark.parametrize("url", [LOCAL, LOCAL + "/", "http://localhost:9123", "http://[::1]:9123", PUBLIC])
def test_every_address_of_the_server_here_may_have_its_token(tmp_path, url):
    assert address.find_token(None, written(tmp_path), url) == "pft_local"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9124", "http://127.0.0.1", "https://elsewhere.example.org", "http://perfect.example.org"]
)
def test_another_address_does_not_get_the_token_of_the_server_here(tmp_path, url):
    environ = written(tmp_path)

    with pytest.raises(address.NoToken, match="belongs to the server at http://127.0.0.1:9123 and is sent to no other"):
        address.find_token(None, environ, url)
    with pytest.raises(worker.Unusable, match="createtoken"):
        worker.configure([str(FLOWS)], environ=environ, url=url)
    assert address.find_token("given", environ, url) == "given"
    assert address.find_token(None, dict(environ, PERFECT_TOKEN="set"), url) == "set"


def test_while_the_server_is_away_only_its_addresses_and_this_machine_get_its_token(tmp_path):
    environ = written(tmp_path, pid=a_dead_pid())

    assert address.find_token(None, environ, "http://127.0.0.1:9124") == "pft_local"
    with pytest.raises(address.NoToken, match="belongs to a server on this machine"):
        address.find_token(None, environ, PUBLIC)

    (tmp_path / "worker-token-for").write_text("%s\n%s\n" % (LOCAL, PUBLIC))
    assert address.find_token(None, environ, PUBLIC) == "pft_local"
    with pytest.raises(address.NoToken, match="belongs to the server at http://127.0.0.1:9123"):
        address.find_token(None, environ, "https://elsewhere.example.org")


def test_a_worker_without_any_option_connects_to_the_server_of_its_home(tmp_path, server, start_worker):
    written(tmp_path, url=server.url)
    (tmp_path / "worker-token").write_text(server.token)

    started = start_worker(token=None, url=None)

    assert server.run("hello")[1]["outcome"] == "COMPLETED"
    assert isinstance(started, Worker) and server.url in started.said()


def test_a_server_that_comes_later_or_on_another_port_is_found(tmp_path, server, start_worker):
    with contextlib.closing(FakeServer()) as other:
        written(tmp_path, url=other.url)
        (tmp_path / "worker-token").write_text(server.token)
        started = start_worker(token=None, url=None)
        other.wait(lambda: other.joined)

        written(tmp_path, url=server.url)
        (tmp_path / "worker-token").write_text(server.token)

    assert server.run("hello")[1]["outcome"] == "COMPLETED"
    assert server.url in started.said()
