"""A run is what its code would be if it was started by itself: nothing that the imports left is shared by two runs."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.worker.kit import children_of, eventually, is_alive


def write(path, text):
    """A new file each time, so that its time and size differ as they do for people."""
    fresh = path.with_suffix(".new")
    fresh.write_text(textwrap.dedent(text))
    os.replace(str(fresh), str(path))
    return path


class EchoesThePath(BaseHTTPRequestHandler):
    """Answers each address with itself, over connections that stay open; items take a moment."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/item/"):
            time.sleep(0.2)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def web():
    made = ThreadingHTTPServer(("127.0.0.1", 0), EchoesThePath)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made.server_address[1]
    made.shutdown()
    made.server_close()


CONNECTED = """
    import http.client
    from perfect_client import flow

    CONNECTION = http.client.HTTPConnection("localhost", {port}, timeout=10)
    CONNECTION.request("GET", "/conf")
    CONF = CONNECTION.getresponse().read()

    @flow
    def fetch_item(n: int) -> str:
        CONNECTION.request("GET", "/item/%d" % n)
        return CONNECTION.getresponse().read().decode()
"""


def start_of(server, flow):
    """How the flow's runs start, and why, as the worker says."""
    spec = server.wait(lambda: next((spec for spec in server.flows if spec["name"] == flow), None))
    return spec["start"], spec["start_reason"]


def test_runs_do_not_share_a_connection_that_the_import_opened(server, start_worker, tmp_path, web):
    worker = start_worker(targets=[write(tmp_path / "etl.py", CONNECTED.format(port=web))])

    runs = [server.offer("fetch_item", n=number) for number in range(16)]

    server.wait(lambda: all(run.end for run in runs), seconds=60)
    assert [run.end["result"] for run in runs] == [f"'/item/{number}'" for number in range(16)]
    start, reason = start_of(server, "fetch_item")
    assert start == "fresh"
    assert reason == f"starts fresh: etl.py line 6 left an open connection to localhost:{web}"
    assert f"fetch_item {reason}" in worker.said()


def test_a_thread_pool_that_the_import_used_works_in_a_run(server, start_worker, tmp_path):
    source = """
        from concurrent.futures import ThreadPoolExecutor
        from perfect_client import flow

        POOL = ThreadPoolExecutor(1)
        POOL.submit(len, "").result()

        @flow
        def pooled() -> int:
            return POOL.submit(len, "four").result(timeout=5)
    """
    start_worker(targets=[write(tmp_path / "pool.py", source)])

    assert server.run("pooled")[1]["result"] == "4"
    assert "pool.py line 6 left the thread 'ThreadPoolExecutor-0_0'" in start_of(server, "pooled")[1]


LEFTOVERS = {
    "an event loop": ("import asyncio", "LOOP = asyncio.new_event_loop()"),
    "the child process": ("import subprocess", "CHILD = subprocess.Popen(['sleep', '600'])"),
    "rmtree() to be called at the end of the process": (
        "import atexit, shutil, tempfile",
        "atexit.register(shutil.rmtree, tempfile.mkdtemp())",
    ),
    "a finalizer for the end of the process": ("import tempfile", "FOLDER = tempfile.TemporaryDirectory()"),
    "the open file data.txt": ("import pathlib", "DATA = open(pathlib.Path(__file__).parent / 'data.txt')"),
    "a seed for random numbers": ("import random", "random.seed(42)"),
    "a socket that listens on 127.0.0.1": ("import socket", "SOCKET = socket.create_server(('127.0.0.1', 0))"),
    "an open pipe": ("import os", "PIPE = os.pipe()"),
    "memory that forks share": ("import multiprocessing", "LOCK = multiprocessing.Lock()"),
}


@pytest.mark.parametrize("left", LEFTOVERS)
def test_what_an_import_leaves_is_named_with_its_line(server, start_worker, tmp_path, left):
    (tmp_path / "data.txt").write_text("1\n2\n")
    lines = [*LEFTOVERS[left], "from perfect_client import flow", "@flow", "def f(): return 'done'"]
    worker = start_worker(targets=[write(tmp_path / "leaves.py", "\n".join(lines))])

    assert server.run("f")[1]["result"] == "'done'"
    start, reason = start_of(server, "f")
    line = "" if left == "memory that forks share" else " line 2"
    assert (start, f"leaves.py{line} left " in reason, left in reason) == ("fresh", True, True), reason
    before = children_of(worker.pid)
    worker.stop()
    eventually(lambda: not any(is_alive(pid) for pid in before))


HARMLESS = {
    "a connection that was closed": "import socket\nwith socket.create_server(('127.0.0.1', 0)):\n    pass",
    "a thread that has ended": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "a pool that was left": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p:\n"
    "    p.submit(print).result()",
    "a log file": "import logging, pathlib\nlogging.getLogger('x').addHandler("
    "logging.FileHandler(pathlib.Path(__file__).parent / 'x.log'))",
    "a database in a file that is closed": "import sqlite3\nsqlite3.connect(':memory:').close()",
    "a program that was run": "import subprocess\nsubprocess.run(['true'])",
    "a seed behind the main guard": "import random\nif __name__ == '__main__':\n    random.seed(1)",
    "multiprocessing and asyncio": "import multiprocessing.util, asyncio, logging, concurrent.futures.thread",
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_gone_or_survives_a_fork_is_no_reason(server, start_worker, tmp_path, what):
    source = HARMLESS[what] + "\nfrom perfect_client import flow\n@flow\ndef f(): return 'done'\n"
    start_worker(targets=[write(tmp_path / "clean.py", source)])

    assert server.run("f")[1]["result"] == "'done'"
    assert start_of(server, "f") == ("fork", "")


def test_a_file_that_leaves_nothing_is_forked_beside_one_that_does(server, start_worker, tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    source = (
        "import atexit\nimport sys\n{}from perfect_client import flow\n@flow\ndef {}(): return len(sys.modules) > 0\n"
    )
    write(folder / "a.py", source.format("atexit.register(print, 'cleaned up')\n", "leaves"))
    write(folder / "b.py", source.format("", "clean"))
    start_worker(targets=[folder])

    clean, leaves = server.run("clean")[0], server.run("leaves")[0]

    assert start_of(server, "clean") == ("fork", "")
    assert start_of(server, "leaves")[0] == "fresh"
    server.until_line(leaves, "cleaned up")
    assert clean.lines == []


def test_files_that_share_a_helper_share_what_it_leaves(server, start_worker, tmp_path):
    folder = tmp_path / "jobs"
    folder.mkdir()
    write(folder / "helper.py", "import socket\nSOCKET = socket.socketpair()\n")
    for name in ("one", "two"):
        write(folder / f"{name}.py", f"import helper\nfrom perfect_client import flow\n@flow\ndef {name}(): return 1\n")
    write(folder / "three.py", "from perfect_client import flow\n@flow\ndef three(): return 1\n")
    start_worker(targets=[folder])

    starts = {name: start_of(server, name) for name in ("one", "two", "three")}

    left = "starts fresh: helper.py line 2 left an open connection to another process (2 times)"
    assert starts == {"one": ("fresh", left), "two": ("fresh", left), "three": ("fork", "")}


@pytest.mark.parametrize("wanted", ["fork", "fresh"])
def test_a_flow_can_ask_for_its_start(server, start_worker, tmp_path, wanted):
    source = f"import os\nPID = os.getpid()\nfrom perfect_client import flow\n@flow(start='{wanted}')\ndef f():\n"
    start_worker(targets=[write(tmp_path / "asks.py", source + "    return os.getpid() == PID\n")])

    assert server.run("f")[1]["result"] == str(wanted == "fresh")
    assert start_of(server, "f")[0] == wanted


@pytest.mark.parametrize("wanted", ["fork", "fresh"])
def test_an_operator_can_ask_for_all(server, start_worker, tmp_path, wanted):
    source = "import os\nPID = os.getpid()\nfrom perfect_client import flow\n@flow(start='auto')\ndef f():\n"
    file = write(tmp_path / "asks.py", source + "    return os.getpid() == PID\n")
    start_worker("--start", wanted, targets=[file])

    assert server.run("f")[1]["result"] == str(wanted == "fresh")


def test_what_the_import_of_a_fresh_run_prints_stands_in_its_log(server, start_worker, tmp_path):
    source = "print('importing')\nfrom perfect_client import flow\n@flow\ndef f(): print('running')\n"
    start_worker("--start", "fresh", targets=[write(tmp_path / "talks.py", source)])

    runs = [server.offer("f") for _ in range(4)]  # some in an interpreter that was ready, some in one made for it

    for run in runs:
        server.wait(lambda run=run: run.end and sorted(run.lines) == ["importing", "running"])


def test_an_import_that_fails_in_a_fresh_run_fails_it_with_the_line(server, start_worker, tmp_path):
    (tmp_path / "there").touch()
    source = """
        import pathlib
        if not (pathlib.Path(__file__).parent / "there").exists():
            raise OSError("the database is away")
        from perfect_client import flow
        @flow(start="fresh")
        def f(): return 1
    """
    start_worker("--no-reload", targets=[write(tmp_path / "needs.py", source)])
    assert server.run("f")[1]["outcome"] == "COMPLETED"

    os.unlink(tmp_path / "there")
    ends = [server.run("f")[1] for _ in range(3)]  # what was imported before may still be there

    assert (ends[-1]["outcome"], "needs.py:4 does not import: OSError: the database is away" in ends[-1]["error"]) == (
        "FAILED",
        True,
    )


def test_an_interpreter_in_reserve_ends_with_its_worker(server, start_worker, tmp_path):
    source = "from perfect_client import flow\n@flow\ndef f(): return 1\n"
    worker = start_worker("--start", "fresh", targets=[write(tmp_path / "one.py", source)])
    server.run("f")
    eventually(lambda: children_of(worker.pid))
    children = children_of(worker.pid)

    worker.kill()

    eventually(lambda: not any(is_alive(pid) for pid in children))


def test_a_run_in_its_own_interpreter_is_cancelled_with_all_it_started(server, start_worker, tmp_path):
    source = """
        import subprocess, time
        from perfect_client import flow
        @flow(start="fresh")
        def f():
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            print(child.pid)
            time.sleep(600)
    """
    start_worker(targets=[write(tmp_path / "long.py", source)])
    attempt = server.offer("f")
    server.wait(lambda: attempt.lines)
    child = int(attempt.lines[0])

    server.cancel(attempt, grace_s=1.0)

    assert server.wait(lambda: attempt.end)["outcome"] == "CANCELLED"
    eventually(lambda: not is_alive(child))


# ------------------------------------------------------------------------------------------------------ growing old


def test_no_run_uses_an_import_that_is_too_old(server, start_worker, tmp_path):
    source = """
        import time
        from perfect_client import flow
        MADE = time.time()
        @flow
        def age(): return time.time() - MADE
    """
    start_worker(targets=[write(tmp_path / "old.py", source)], PERFECT_IMPORT_AGE="2")
    server.run("age")

    began, ages = time.monotonic(), []
    while time.monotonic() - began < 5:
        ages.append(float(server.run("age")[1]["result"]))

    assert max(ages) < 2.5
    assert len(ages) > 2


def test_a_default_that_is_the_moment_of_the_import_is_named(server, start_worker, tmp_path):
    source = """
        from datetime import date, datetime
        from perfect_client import flow
        @flow
        def nightly(day: date = date.today(), at: datetime = datetime.now(), other: date = date(2020, 1, 1)): ...
    """
    start_worker(targets=[write(tmp_path / "nightly.py", source)])

    notes = server.wait(lambda: server.flows)[0]["notes"]

    assert len(notes) == 2
    assert "The default of 'day'" in notes[0] and "is worked out when the worker imports the file" in notes[0]
    assert "'at'" in notes[1]
    if sys.version_info >= (3, 9):  # older ones cannot write an expression down
        assert "'day', date.today(), is" in notes[0] and "'at', datetime.now(), is" in notes[1]


def test_a_settings_file_that_the_import_read_counts_as_source(server, start_worker, tmp_path):
    source = """
        import json, pathlib
        from perfect_client import flow
        CONF = json.loads((pathlib.Path(__file__).parent / "conf.json").read_text())
        @flow
        def conf(): return CONF["size"]
    """
    write(tmp_path / "conf.json", '{"size": 1}')
    start_worker(targets=[write(tmp_path / "set.py", source)])
    assert server.run("conf")[1]["result"] == "1"

    write(tmp_path / "conf.json", '{"size": 22}')

    assert server.run("conf")[1]["result"] == "22"


# ------------------------------------------------------------------------------------------------ names and folders


def test_each_folder_has_its_own_helpers(server, start_worker, tmp_path):
    for number in (1, 2):
        folder = tmp_path / "jobs" / f"sub{number}"
        folder.mkdir(parents=True)
        write(folder / "helpers.py", f"NAME = 'helpers of sub{number}'\n")
        write(folder / "late.py", f"NAME = 'late of sub{number}'\n")
        source = f"""
            from perfect_client import flow
            import helpers
            @flow(name="uses helpers {number}")
            def uses_helpers():
                import late
                return helpers.NAME + ", " + late.NAME
        """
        write(folder / "main.py", source)
    start_worker(targets=[tmp_path / "jobs"])

    for number in (1, 2, 1):
        told = server.run(f"uses helpers {number}")[1]["result"]
        assert told == f"'helpers of sub{number}, late of sub{number}'"


def test_folders_without_an_init_file_are_each_folders_own(server, start_worker, tmp_path):
    for number in (1, 2):
        folder = tmp_path / "jobs" / f"sub{number}"
        (folder / "utils").mkdir(parents=True)
        write(folder / "utils" / "early.py", f"NAME = 'early of sub{number}'\n")
        write(folder / "utils" / "late.py", f"NAME = 'late of sub{number}'\n")
        source = f"""
            from perfect_client import flow
            from utils import early
            @flow(name="uses utils {number}")
            def uses_utils():
                from utils import late
                return early.NAME + ", " + late.NAME
        """
        write(folder / "main.py", source)
    start_worker(targets=[tmp_path / "jobs"])

    for number in (1, 2, 1):
        assert server.run(f"uses utils {number}")[1]["result"] == f"'early of sub{number}, late of sub{number}'"


def test_a_file_in_a_package_finds_the_helpers_beside_it(server, start_worker, tmp_path):
    """By their own name, as ``python file.py`` would, and by that in the package."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "__init__.py", "")
        write(tmp_path / name / "helpers.py", f"WHOSE = {name!r}\n")
        write(
            tmp_path / name / f"flow_{name}.py",
            f"""
            import helpers
            from {name}.helpers import WHOSE
            from perfect_client import flow

            @flow
            def of_{name}() -> str:
                import helpers as late
                return WHOSE + helpers.WHOSE + late.WHOSE
        """,
        )
    start_worker(targets=[tmp_path])

    assert server.run("of_one")[1]["result"] == "'oneoneone'"
    assert server.run("of_two")[1]["result"] == "'twotwotwo'"


def test_a_helper_with_the_name_of_a_module_of_python_is_named(server, start_worker, tmp_path):
    write(tmp_path / "numbers.py", "def add(): pass\n")
    write(tmp_path / "sums.py", "from numbers import add\nfrom perfect_client import flow\n\n@flow\ndef f(): pass\n")
    start_worker(targets=[tmp_path])

    (problem,) = server.wait(lambda: server.problems)
    assert problem.endswith(f". Python has a module 'numbers' of its own, and finds that: rename {tmp_path}/numbers.py")


def test_a_helper_above_is_not_hidden_by_one_of_another_folder(server, start_worker, tmp_path):
    source = "import common\nfrom perfect_client import flow\n@flow\ndef uses_{0}(): return common.NAME\n"
    for name in ("a", "b", "c"):
        (tmp_path / "jobs" / name).mkdir(parents=True)
        write(tmp_path / "jobs" / name / "main.py", source.format(name))
    write(tmp_path / "jobs" / "common.py", "NAME = 'above'\n")
    write(tmp_path / "jobs" / "b" / "common.py", "NAME = 'of b'\n")
    start_worker(targets=[tmp_path / "jobs"])

    told = [server.run(f"uses_{name}")[1]["result"] for name in ("a", "b", "c", "a")]

    assert told == ["'above'", "'of b'", "'above'", "'above'"]


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_the_code_sees_the_arguments_of_its_file_alone(server, start_worker, tmp_path, start):
    source = """
        import argparse, sys
        from perfect_client import flow
        argparse.ArgumentParser().parse_args()
        @flow
        def {}(): return sys.argv
    """
    files = [write(tmp_path / f"{name}.py", source.format(name)) for name in ("one", "two")]
    start_worker("--start", start, targets=files)

    for file in files:
        assert server.run(file.stem)[1]["result"] == repr([str(file)])


def test_two_runs_do_not_draw_the_same_numbers(server, start_worker, tmp_path):
    source = """
        import random
        from perfect_client import flow
        DICE = random.Random()
        @flow
        def draw(): return DICE.random()
    """
    start_worker(targets=[write(tmp_path / "dice.py", source)])

    assert len({server.run("draw")[1]["result"] for _ in range(3)}) == 3
    assert "dice.py line 4 left" in start_of(server, "draw")[1]


def test_a_flow_that_is_called_while_its_file_is_imported_is_named_and_not_run(server, start_worker, tmp_path):
    source = """
        import pathlib
        from perfect_client import flow
        @flow
        def u_flow():
            (pathlib.Path(__file__).parent / "ran").touch()
        u_flow()
    """
    start_worker(targets=[write(tmp_path / "calls.py", source)])

    server.wait(lambda: server.names() == {"u_flow"})
    assert not (tmp_path / "ran").exists()
    (problem,) = server.problems
    assert "calls.py:7 calls the flow 'u_flow' while a worker imports the file: it was not run." in problem


METHODS = """
    from perfect_client import flow, serve

    class Service:
        def __init__(self, base): self.base = base
        @flow
        def method_flow(self, n: int = 1): return self.base + n
        @classmethod
        @flow
        def class_flow(cls, n: int = 2): return cls.__name__ * n
        @staticmethod
        @flow
        def static_flow(n: int = 3): return n
"""


def test_what_is_handed_to_serve_is_served_and_methods_too(server, tmp_path, start_program):
    file = write(
        tmp_path / "served.py",
        METHODS + "\n    if __name__ == '__main__':\n        service = Service(7)\n"
        "        serve(service.method_flow, Service.class_flow, Service.static_flow, name='w9')\n",
    )
    start_program(file)

    assert server.run("method_flow", n=3)[1]["result"] == "10"
    assert server.run("class_flow")[1]["result"] == "'ServiceService'"
    assert server.run("static_flow")[1]["result"] == "3"
    assert [list(spec["parameters"]["properties"]) for spec in server.flows] == [["n"]] * 3


def test_flows_in_a_class_and_in_a_list_are_found(server, start_worker, tmp_path):
    source = (
        METHODS
        + "\n    def make(n):\n        return flow(lambda: n, name='made %d' % n)\n    FLOWS = [make(1), make(2)]\n"
    )
    start_worker(targets=[write(tmp_path / "several.py", source)])

    server.wait(lambda: server.names() == {"class_flow", "static_flow", "made 1", "made 2"})
    assert server.run("made 2")[1]["result"] == "2"


def test_no_run_uses_an_import_of_another_day(server, start_worker, tmp_path):
    source = """
        from datetime import date
        from perfect_client import flow
        DAY = date.today()
        @flow
        def day(): return "%s %s" % (DAY, date.today())
    """
    midnight = int(time.time()) + 12
    ahead = 86_400 - midnight % 86_400  # the worker's clock, of UTC, in seconds
    zone = "XXX-%d:%02d:%02d" % (ahead // 3600, ahead // 60 % 60, ahead % 60)
    start_worker(targets=[write(tmp_path / "days.py", source)], TZ=zone)

    days = set()
    until = time.monotonic() + 40
    while len(days) < 2:
        assert time.monotonic() < until, days
        attempt, end = server.run("day")
        imported, ran = end["result"].strip("'").split()
        ordered = attempt.started_at + time.time() - time.monotonic()
        if ordered > midnight or end["time"] < midnight:  # else it was under way at midnight
            assert imported == ran
            days.add(ran)


CHANGES = "; ".join(
    [
        "os.chdir('/')",
        "os.umask(0o027)",
        "os.environ['FROM_A'] = 'a'",
        "os.environ['WAS_THERE'] = 'changed by a'",
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "sys.setrecursionlimit(5000)",
        "socket.setdefaulttimeout(3.5)",
        "decimal.getcontext().prec = 5",
        "logging.basicConfig(level=logging.ERROR)",
        "multiprocessing.set_start_method('spawn')",
        "warnings.simplefilter('error')",
    ]
)
TELLS = """
    import decimal, logging, multiprocessing, os, signal, socket, sys, warnings
    from perfect_client import flow
    import shared

    {more}

    @flow
    def {name}() -> object:
        mask = os.umask(0)
        os.umask(mask)
        return [
            os.getcwd(), mask, os.environ.get("FROM_A"), os.environ["WAS_THERE"], os.environ.get("SHARED"),
            signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, sys.getrecursionlimit() == 5000,
            socket.getdefaulttimeout(), decimal.getcontext().prec, logging.ERROR in (logging.root.level,),
            multiprocessing.get_start_method(allow_none=True), any(one[0] == "error" for one in warnings.filters),
        ]
"""


def test_a_file_has_the_state_of_its_own_process_alone(server, start_worker, tmp_path, monkeypatch):
    """The folder, the environment, handlers of signals, … that one file sets are not those of its neighbours."""
    monkeypatch.setenv("WAS_THERE", "before")
    write(tmp_path / "shared.py", "import os\nos.environ['SHARED'] = 'yes'\n")
    write(tmp_path / "a.py", TELLS.format(more=CHANGES, name="changes"))
    write(tmp_path / "b.py", TELLS.format(more="multiprocessing.set_start_method('fork')", name="is_plain"))
    start_worker(targets=[tmp_path])

    assert start_of(server, "changes")[0] == start_of(server, "is_plain")[0] == "fork"
    _, plain = server.run("is_plain")
    _, changed = server.run("changes")

    assert changed["result"] == str(["/", 0o027, "a", "changed by a", "yes", True, True, 3.5, 5, True, "spawn", True])
    mask = os.umask(0)
    os.umask(mask)
    assert plain["result"] == str(
        [str(tmp_path), mask, None, "before", "yes", False, False, None, 28, False, "fork", False]
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import tempfile; PLACE = tempfile.mkdtemp()", "a temporary folder or file that forks would share"),
        ("import uuid; ID = uuid.uuid4().hex", "an id that forks would share"),
        ("import os; ID = '/tmp/of-%d' % os.getpid()", "an id that forks would share"),
    ],
)
def test_what_each_run_is_to_have_of_its_own_is_made_for_each(server, start_worker, tmp_path, line, what):
    names = {"tempfile": "PLACE", "uuid": "ID", "os": "ID"}
    value = names[line.split(";")[0].split()[1]]
    text = "\n".join(
        [
            *line.split("; "),
            "from perfect_client import flow",
            "",
            "@flow",
            "def tells() -> str:",
            f"    return {value}",
            "",
        ]
    )
    write(tmp_path / "once.py", text)
    start_worker(targets=[tmp_path / "once.py"])

    assert start_of(server, "tells") == ("fresh", f"starts fresh: once.py line 2 left {what}")
    results = {server.run("tells")[1]["result"] for _ in range(3)}
    assert len(results) == 3
