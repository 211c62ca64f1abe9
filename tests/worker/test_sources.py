"""Flows as files: what does not import is a sentence, what changed is imported again."""

from __future__ import annotations

import os

import pytest

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


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_a_broken_save_keeps_the_last_good_code_and_is_told(server, start_worker, tmp_path, start):
    file = tmp_path / "mine.py"
    write(file, GOOD % 1)
    start_worker("--start", start, targets=[file])
    server.run("answer")

    write(file, "def broken(:\n")
    ends = [server.run("answer")[1] for _ in range(3)]

    assert [end["result"] for end in ends] == ["1", "1", "1"]
    (problem,) = server.problems
    assert "mine.py:1 does not import: SyntaxError" in problem
    assert server.flows[0]["problem"] == problem.rstrip(".") + ". Its last good code is used."

    write(file, GOOD % 333)
    assert server.run("answer")[1]["result"] == "333"
    server.wait(lambda: not server.problems and not server.flows[0]["problem"])


def test_a_broken_helper_keeps_the_last_good_code_of_all_that_use_it(server, start_worker, tmp_path):
    write(tmp_path / "helper.py", "ANSWER = 1\n")
    text = "import helper\nfrom perfect_client import flow\n\n@flow\ndef answer():\n    return helper.ANSWER\n"
    write(tmp_path / "mine.py", text)
    start_worker(targets=[tmp_path / "mine.py"])
    server.run("answer")

    write(tmp_path / "helper.py", "ANSWER = = 2\n")
    server.wait(lambda: server.problems)
    assert server.run("answer")[1]["result"] == "1"

    write(tmp_path / "helper.py", "ANSWER = 22\n")
    server.wait(lambda: not server.problems)
    assert server.run("answer")[1]["result"] == "22"


def test_an_import_that_kills_the_interpreter_costs_no_other_file_its_flows(server, start_worker, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "one.py", GOOD % 1)
    write(folder / "two.py", (GOOD % 2).replace("answer", "question"))
    start_worker(targets=[folder])
    server.wait(lambda: server.names() == {"answer", "question"})

    write(folder / "one.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n" + GOOD % 3)
    server.wait(lambda: server.problems)

    assert "one.py failed: the process was killed by signal 11 (segmentation fault)" in server.problems[0]
    assert (server.run("answer")[1]["result"], server.run("question")[1]["result"]) == ("1", "2")


def test_a_changed_signature_is_there_by_itself(server, start_worker, tmp_path):
    text = "from perfect_client import flow\n\n@flow\ndef sig(%s):\n    return 1\n"
    write(tmp_path / "mine.py", text % "count: int")
    start_worker(targets=[tmp_path / "mine.py"])
    server.wait(lambda: server.flows and "count" in server.flows[0]["parameters"]["properties"])

    write(tmp_path / "mine.py", text % "total: int = 1")

    server.wait(lambda: "total" in server.flows[0]["parameters"]["properties"])


def test_a_new_flow_appears_by_itself_and_one_whose_file_is_gone_goes(server, start_worker, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "one.py", GOOD % 1)
    start_worker(targets=[folder])
    server.wait(lambda: server.names() == {"answer"})

    write(folder / "two.py", (GOOD % 2).replace("answer", "question"))
    server.wait(lambda: server.names() == {"answer", "question"})

    os.unlink(folder / "one.py")
    server.wait(lambda: server.names() == {"question"})


def test_a_file_that_could_not_import_for_a_while_is_tried_again(server, start_worker, tmp_path):
    text = "import os\nif not os.path.exists(%r):\n    raise OSError('the disk is away')\n" % str(tmp_path / "disk")
    write(tmp_path / "mine.py", text + GOOD % 1)
    start_worker("--no-reload", targets=[tmp_path / "mine.py"])
    server.wait(lambda: server.problems)

    (tmp_path / "disk").touch()

    server.wait(lambda: server.names() == {"answer"}, seconds=40)
    assert server.problems == []


def test_without_reload_a_change_is_not_looked_for(server, start_worker, tmp_path):
    write(tmp_path / "mine.py", GOOD % 1)
    start_worker("--no-reload", targets=[tmp_path / "mine.py"])
    server.run("answer")

    write(tmp_path / "mine.py", GOOD % 22)

    assert server.run("answer")[1]["result"] == "1"


def test_a_file_that_serves_itself_is_a_worker(server, tmp_path, start_worker):
    write(tmp_path / "mine.py", GOOD % 7 + "\nfrom perfect_client import serve\nserve(name='mine', slots=2)\n")
    start_worker(targets=[tmp_path / "mine.py"], name="other")

    assert server.run("answer")[1]["result"] == "7"
    assert server.joined[0].name == "other"


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_deployment_takes_away_for_a_moment_comes_back(server, start_worker, tmp_path, folder):
    target, away = tmp_path / ("flows" if folder else "flows.py"), tmp_path / "away"
    if folder:
        target.mkdir()
    write(target / "one.py" if folder else target, GOOD % 1)
    start_worker(targets=[target])
    server.wait(lambda: server.names() == {"answer"})

    target.rename(away)
    server.wait(lambda: "There is no file or folder" in str(server.problems))
    away.rename(target)

    server.wait(lambda: server.names() == {"answer"} and not server.problems)


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_a_link_that_is_set_to_another_folder_is_followed(server, start_worker, tmp_path, start):
    for release in ("1", "22"):
        (tmp_path / release).mkdir()
        write(tmp_path / release / "release.py", "NUMBER = %s\n" % release)
        text = (
            "from release import NUMBER\nfrom perfect_client import flow\n\n@flow\ndef answer():\n    return NUMBER\n"
        )
        write(tmp_path / release / "one.py", text)
    (tmp_path / "current").symlink_to("1")
    start_worker("--start", start, targets=[tmp_path / "current"])
    assert server.run("answer")[1]["result"] == "1"

    (tmp_path / "next").symlink_to("22")
    os.replace(str(tmp_path / "next"), str(tmp_path / "current"))

    assert server.run("answer")[1]["result"] == "22"


IMPATIENT = """
import sys
from perfect_client.worker import launcher
from perfect_client.cli import main
for name in sys.argv[3:]:
    setattr(launcher, name.partition("=")[0], float(name.partition("=")[2] or 1))
sys.exit(main(["worker", sys.argv[1], "--name", "w1", "--url", sys.argv[2]]))
"""


@pytest.mark.parametrize("patience", ["_FIRST_IMPORT_S", "_HANGING_IMPORT_S"])
def test_an_import_that_does_not_end_costs_no_other_file_its_flows(server, start_worker, tmp_path, patience):
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "one.py", "import time\ntime.sleep(600)\n" + GOOD % 1)
    write(folder / "two.py", (GOOD % 2).replace("answer", "question"))
    start_worker(program=["-c", IMPATIENT, folder, server.url, patience])
    server.wait(lambda: server.names() == {"question"})

    assert "one.py takes longer than" in server.problems[0]
    assert server.run("question")[1]["result"] == "2"

    write(folder / "one.py", GOOD % 333)
    server.wait(lambda: server.names() == {"answer", "question"} and not server.problems)
    assert server.run("answer")[1]["result"] == "333"


def test_a_slow_import_is_given_more_time_when_nobody_waits_for_it(server, start_worker, tmp_path):
    """A worker's first try of a file is short where others wait; the next one, beside what serves, is longer."""
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "one.py", "import time\ntime.sleep(1.5)\n" + GOOD % 1)
    write(folder / "two.py", (GOOD % 2).replace("answer", "question"))
    start_worker(program=["-c", IMPATIENT, folder, server.url, "_FIRST_IMPORT_S", "_RETRY_S"])

    server.wait(lambda: server.names() == {"question"})
    server.wait(lambda: server.names() == {"answer", "question"}, 30)


def test_a_slow_module_that_all_files_import_costs_one_of_them_its_first_try(server, start_worker, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    write(folder / "common.py", "import time\ntime.sleep(2)\n")
    names = {"a", "b", "c", "d", "e"}
    for name in names:
        write(folder / (name + ".py"), "import common\n" + (GOOD % 1).replace("answer", name))
    options = ["_FIRST_IMPORT_S=1", "_HANGING_IMPORT_S=20", "_RETRY_S=60"]
    start_worker(program=["-c", IMPATIENT, folder, server.url, *options])

    server.wait(lambda: len(server.names() & names) == 4, 30)
