"""Flows as files: what does not import is a sentence, what changed is imported again."""

from __future__ import annotations

import os

GOOD = "from perfect_client import flow\n\n@flow\ndef answer():\n    return %r\n"


def write(path, text):
    """A new file each time, so that its time and size differ as they do for people."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(str(fresh), str(path))


def test_a_file_that_does_not_import_is_a_problem_and_not_the_end(server, start_worker, tmp_path):
    write(tmp_path / "good.py", GOOD % 1)
    write(tmp_path / "bad.py", "from perfect_client import flow\n\n@flow\ndef broken(:\n")

    worker = start_worker(targets=[tmp_path / "good.py", tmp_path / "bad.py"])

    assert server.run("answer")[1]["result"] == "1"
    assert any("bad.py" in problem and "SyntaxError" in problem for problem in server.problems)
    assert "SyntaxError" in worker.said()


def test_a_file_that_kills_the_interpreter_is_a_problem_too(server, start_worker, tmp_path):
    write(tmp_path / "deadly.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")

    start_worker(targets=[tmp_path / "deadly.py"])

    server.wait(lambda: server.problems)
    assert "deadly.py failed: the process was killed by signal 11 (segmentation fault)" in server.problems[0]


def test_the_next_run_has_the_new_source(server, start_worker, tmp_path):
    write(tmp_path / "mine.py", GOOD % 1)
    start_worker(targets=[tmp_path / "mine.py"])
    first = server.run("answer")[1]

    write(tmp_path / "mine.py", GOOD % 22)

    assert (first["result"], server.run("answer")[1]["result"]) == ("1", "22")


def test_a_run_keeps_the_source_it_started_with(server, start_worker, tmp_path):
    text = (
        "import os, time\nfrom perfect_client import flow\n\n@flow\ndef answer(path: str):\n    print('waiting')\n"
        "    while not os.path.exists(path):\n        time.sleep(0.01)\n    return %r\n"
    )
    write(tmp_path / "mine.py", text % 1)
    start_worker(targets=[tmp_path / "mine.py"])
    old = server.offer("answer", path=str(tmp_path / "go"))
    server.until_line(old, "waiting")

    write(tmp_path / "mine.py", text % 22)
    new = server.offer("answer", path=str(tmp_path / "go"))
    server.until_line(new, "waiting")
    (tmp_path / "go").touch()

    server.wait(lambda: old.end and new.end)
    assert (old.end["result"], new.end["result"]) == ("1", "22")


def test_an_offer_of_a_flow_whose_new_source_is_broken_is_declined_with_the_error(server, start_worker, tmp_path):
    write(tmp_path / "mine.py", GOOD % 1)
    start_worker(targets=[tmp_path / "mine.py"])
    server.run("answer")

    write(tmp_path / "mine.py", "def broken(:\n")
    declined = server.offer("answer")
    assert "SyntaxError" in server.wait(lambda: declined.declined)

    write(tmp_path / "mine.py", GOOD % 333)
    again = server.offer_unseen("answer")
    assert server.wait(lambda: again.end)["result"] == "333"


def test_with_reload_a_new_flow_appears_by_itself(server, start_worker, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "one.py", GOOD % 1)
    start_worker("--reload", targets=[folder])
    server.wait(lambda: server.names() == {"answer"})

    write(folder / "two.py", (GOOD % 2).replace("answer", "question"))

    server.wait(lambda: server.names() == {"answer", "question"})


def test_a_file_that_serves_itself_is_a_worker(server, tmp_path, start_worker):
    write(tmp_path / "mine.py", GOOD % 7 + "\nfrom perfect_client import serve\nserve(name='mine', slots=2)\n")
    start_worker(targets=[tmp_path / "mine.py"], name="other")

    assert server.run("answer")[1]["result"] == "7"
    assert server.joined[0].name == "other"
