"""What the server could not take of a worker's flows is said in the worker's own terminal, once."""

from __future__ import annotations

from perfect_client.wire import messages

from tests.worker.kit import eventually

FIRST = "flow '' (etl.py:3) is not served: a flow's name must have 1 to 200 characters"
SECOND = "schedule 'default' of flow 'Late' does not fire: Unknown time zone 'Mars'"
FLOW = "from perfect_client import flow\n\n@flow\ndef answer():\n    return %d\n"


def test_each_refusal_is_said_once_and_after_the_flows(server, start_worker, tmp_path):
    (tmp_path / "mine.py").write_text(FLOW % 1)
    worker = start_worker(targets=[tmp_path / "mine.py"])
    server.wait(lambda: server.announced)

    server.send(messages.FlowsRefused([FIRST]))
    eventually(lambda: FIRST in worker.said())
    server.send(messages.FlowsRefused([FIRST, SECOND]))
    eventually(lambda: SECOND in worker.said())

    assert worker.said().count(FIRST) == worker.said().count(SECOND) == 1
    assert worker.said().index("  flows   answer") < worker.said().index("refused by the server: " + FIRST)


def test_a_new_connection_says_nothing_twice_but_new_source_does(server, start_worker, tmp_path):
    (tmp_path / "mine.py").write_text(FLOW % 1)
    worker = start_worker(targets=[tmp_path / "mine.py"])
    server.wait(lambda: server.announced == 1)
    server.send(messages.FlowsRefused([FIRST]))
    eventually(lambda: FIRST in worker.said())
    server.close()
    server.open()
    server.wait(lambda: server.announced == 2)
    server.send(messages.FlowsRefused([FIRST]))
    assert server.run("answer")[1]["result"] == "1"
    assert worker.said().count(FIRST) == 1

    (tmp_path / "mine.py").write_text(FLOW % 22)
    assert server.run("answer")[1]["result"] == "22"
    server.send(messages.FlowsRefused([FIRST]))

    eventually(lambda: worker.said().count(FIRST) == 2)


def test_an_order_that_a_worker_does_not_know_does_no_harm(server, start_worker, tmp_path):
    (tmp_path / "mine.py").write_text(FLOW % 1)
    start_worker(targets=[tmp_path / "mine.py"])
    server.wait(lambda: server.announced)

    server._connections[-1].send('{"type":"TeaServed","cups":2}')

    assert server.run("answer")[1]["result"] == "1"
