"""A flow file that is run by itself shows what its flow does: on a terminal, in a pipe, and not where nobody asked."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
from perfect_client.console.run_progress import RunProgress, span
from perfect_client.console.terminal import fitted, width_of
from perfect_client.wire.messages import RunEnded, RunStarted, TaskEnded, TaskProgressed, TaskSpec, TaskStarted

from tests.sdk.terminals import Terminal, piped

Write = Callable[[str], str]

FLOW = """
import sys, time
from pathlib import Path
from perfect_client import flow, get_run_logger, progress, task

def until(name):
    while not Path(__file__).with_name(name).exists():
        time.sleep(0.01)

@task(weight=3)
def extract():
    print("rows are read")
    progress(0.5, "half of it")
    until("go")
    return [1, 2, 3]

@task
def load(row):
    get_run_logger().info("loading %d", row)
    return row

@task
def bad():
    raise ValueError("no good")
"""

NIGHTLY = """
@flow(name="Nightly load")
def nightly():
    return sum(load.map(extract()).result())

if __name__ == "__main__":
    print("result", nightly())
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(code: str) -> str:
        path = tmp_path / "nights.py"
        path.write_text(FLOW + textwrap.dedent(code), encoding="utf-8")
        return str(path)

    return write


def go(path: str) -> None:
    Path(path).with_name("go").touch()


# ---------------------------------------------------------------------------------------------------- on a terminal


def test_a_terminal_shows_lines_that_redraw_below_what_is_printed(write: Write) -> None:
    path = write(NIGHTLY)

    with Terminal(path) as terminal:
        terminal.until(lambda screen: "half of it" in screen)
        during = terminal.screen.text.splitlines()
        go(path)
        code = terminal.end()
        after = terminal.screen.text.splitlines()

    assert during[0] == "rows are read"
    assert re.match(r"Nightly load  \S+   37 %  0\.\d s$", during[1])  # 3 · 0.5 of 3 + 1
    assert re.match(r"  ▸ extract  0\.\d s  50 % half of it$", during[2])
    assert during[3].strip() == "1 to come"
    assert code == 0
    assert after[0] == "rows are read"
    assert sorted(line[9:] for line in after[1:4]) == ["INFO    loading %d" % row for row in (1, 2, 3)]
    assert re.match(r"✓ Nightly load completed in .* · 4 done$", after[4])
    assert after[5:] == ["result 6"]


def test_control_c_leaves_a_clean_terminal_and_one_line(write: Write) -> None:
    path = write(NIGHTLY)

    with Terminal(path) as terminal:
        terminal.until(lambda screen: "half of it" in screen)
        terminal.press_control_c()
        code = terminal.end()
        told = terminal.screen.text

    assert re.match(r"rows are read\n(\^C)?\n?■ Nightly load was stopped after \S+ m?s · 1 cancelled\n$", told)
    assert "Traceback" not in told and "▸" not in told
    assert len([line for line in told.splitlines() if line.strip("^C")]) == 2
    assert code == -2


def test_no_colour_and_dumb_terminals_are_honoured(write: Write) -> None:
    path = write(NIGHTLY)
    go(path)

    with Terminal(path) as colourful, Terminal(path, NO_COLOR="1") as plain, Terminal(path, TERM="dumb") as dumb:
        for terminal in (colourful, plain, dumb):
            assert terminal.end() == 0

    assert "\x1b[32m" in colourful.raw
    assert not re.search(r"\x1b\[[0-9;]*m", plain.raw) and "✓ Nightly load completed" in plain.raw
    assert "\x1b" not in dumb.raw and "run     Nightly load completed" in dumb.raw


def test_an_unfinished_line_is_left_alone(write: Write) -> None:
    path = write(
        """
        @flow
        def asks():
            print("name? ", end="")
            sys.stdout.flush()
            until("go")
            print("thanks")
            extract()

        asks()
        """
    )

    with Terminal(path) as terminal:
        terminal.until(lambda screen: "name?" in screen)
        assert terminal.screen.text == "name?"
        go(path)
        terminal.end()

    assert terminal.screen.text.splitlines()[0] == "name? thanks"


def test_a_question_stands_until_it_is_answered(write: Write) -> None:
    path = write(
        """
        @flow
        def asks():
            extract()
            return input("name? ")

        print("hello", asks())
        """
    )
    go(path)

    with Terminal(path) as terminal:
        terminal.until(lambda screen: "name?" in screen)
        before = len(terminal.raw)
        for _ in range(3):  # the display would have been drawn again
            terminal.read_for(0.1)
        assert "▸" not in terminal.raw[before:] and terminal.screen.text.endswith("name?")
        terminal.type("ana\n")
        assert terminal.end() == 0

    assert terminal.screen.text.rstrip().splitlines()[-1] == "hello ana"


def test_the_thread_that_draws_ends_with_the_last_run(write: Write) -> None:
    path = write(
        """
        import threading

        @flow
        def brief():
            return load(1)

        for _ in range(3):
            brief()
        before = time.monotonic()
        while any(thread.name == "perfect-display" for thread in threading.enumerate()):
            assert time.monotonic() < before + 20
            time.sleep(0.01)
        brief()
        """
    )

    _, err, code = piped(path)

    assert code == 0 and err.count("brief completed") == 4


def test_forked_children_neither_hang_nor_draw(write: Write) -> None:
    path = write(
        """
        import os
        from perfect_client.engine.task_runners import ProcessPoolTaskRunner

        @task
        def forks(n):
            print("in a child")
            return n

        @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
        def parent():
            return forks.map(range(20)).result()

        parent()
        """
    )

    with Terminal(path) as terminal:
        assert terminal.end() == 0

    assert re.search(r"\n✓ parent completed in .* · 20 done$", terminal.screen.text.rstrip())
    assert terminal.raw.count("✓") == 1


# -------------------------------------------------------------------------------------------------------- in a pipe


def test_a_pipe_gets_plain_lines_on_standard_error_alone(write: Write) -> None:
    path = write(NIGHTLY)
    go(path)

    out, err, code = piped(path)

    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in err.splitlines()]
    assert (out, code) == ("rows are read\nresult 6\n", 0)
    assert lines[-1].startswith("run     Nightly load completed in ") and lines[-1].endswith(" · 4 done")
    assert "run     Nightly load started" in lines
    assert any(re.match(r"task    extract completed in [\d.]+ m?s", line) for line in lines)
    assert "\x1b" not in err


def test_many_tasks_are_told_together(write: Write) -> None:
    path = write(
        """
        @task
        def small(n):
            if n % 100 == 7:
                raise ValueError("no")

        @flow
        def many():
            for n in range(10_000):
                try:
                    small(n)
                except ValueError:
                    pass

        many()
        """
    )

    _, err, _ = piped(path)

    lines = err.splitlines()
    one_by_one = [line for line in lines if re.search(r"small( #[\d]+)? (completed|failed|started)", line)]
    told = sum(
        int(n.replace(",", ""))
        for n in re.findall(r"([\d,]+) (?:completed|failed)(?:,|$)", "\n".join(lines[:-1]), re.M)
    )
    assert len(lines) < 200
    assert told + len([line for line in one_by_one if "started" not in line]) == 10_000
    assert lines[-1].endswith("9,900 done, 100 failed")


def test_a_failure_is_told_with_its_reason(write: Write) -> None:
    path = write("@flow\ndef broken():\n    bad()\nbroken()\n")

    _, err, code = piped(path)

    assert re.search(r"task    bad failed after [\d.]+ ms: ValueError: no good\n", err)
    assert re.search(r"run     broken failed after [\d.]+ ms · 1 failed · ValueError: no good\n", err)
    assert code == 1


def test_asynchronous_and_generating_flows_are_shown_too(write: Write) -> None:
    path = write(
        """
        import asyncio

        @flow
        async def later():
            return load(1)

        @flow
        def yields():
            yield load(2)

        asyncio.run(later())
        list(yields())
        """
    )

    _, err, _ = piped(path)

    assert re.search(r"run     later completed in [\d.]+ ms · 1 done", err)
    assert re.search(r"run     yields completed in [\d.]+ ms · 1 done", err)


# ------------------------------------------------------------------------------------------------- and where it is not


@pytest.mark.parametrize("value", ["0", "off", "no"])
def test_it_can_be_switched_off(write: Write, value: str) -> None:
    path = write(NIGHTLY.replace("load.map(extract()).result()", "[6]"))

    out, err, _ = piped(path, PERFECT_CONSOLE=value)

    assert (out, err) == ("result 6\n", "")


def test_a_flow_of_a_library_is_silent_unless_it_is_asked_for(write: Write) -> None:
    path = write(NIGHTLY.replace("load.map(extract()).result()", "[6]"))
    program = Path(path).with_name("program.py")
    program.write_text("import nights; print(nights.nightly())")

    assert piped(str(program)) == ("6\n", "", 0)
    assert "Nightly load completed" in piped(str(program), PERFECT_CONSOLE="1")[1]


def test_tests_are_silent(write: Write) -> None:
    path = write(NIGHTLY.replace("load.map(extract()).result()", "[6]") + "\ndef test_it(): assert nightly() == 6\n")

    out, err, code = piped("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(Path(path).parent), path)

    assert code == 0 and "Nightly" not in out + err, out


def test_a_program_without_a_standard_error_runs(write: Write) -> None:
    path = write("import sys; sys.stderr = None\n@flow\ndef quiet():\n    return load(1)\nprint(quiet())\n")

    assert piped(path) == ("1\n", "", 0)


# ------------------------------------------------------------------------------------------------------ what it costs


def test_a_task_costs_little_with_the_display_on(write: Write) -> None:
    path = write(
        """
        @task
        def nothing(): pass

        @flow
        def measured():
            best = 1.0
            for _ in range(20):
                begun = time.perf_counter()
                for _ in range(500):
                    nothing()
                best = min(best, (time.perf_counter() - begun) / 500)
            print(best)

        measured()
        """
    )

    out, _, _ = piped(path)
    with Terminal(path) as terminal:
        terminal.end()
        drawn = float(re.findall(r"^[\d.e-]+$", terminal.screen.text, re.M)[0])

    assert float(out) < 40e-6 and drawn < 40e-6  # about 12 µs on an idle machine


# ------------------------------------------------------------------------------------------------------------- counts


def spec(key: str, **values: Any) -> TaskSpec:
    return TaskSpec(key, key, **values)


def test_progress_is_the_weight_that_is_done_of_the_weight_that_is_expected() -> None:
    tally = RunProgress([spec("a", weight=3.0), spec("b", estimated_ms=2000.0), spec("c")])
    tally.take(RunStarted(0.0))
    shown = [tally.progress({})]

    for fact in (
        TaskStarted(0.0, 1, "a", weight=3.0),
        TaskProgressed(1.0, 1, 0.5),
        TaskEnded(2.0, 1, "COMPLETED"),
        TaskStarted(2.0, 2, "inner", parent=1),  # part of what its caller does
        TaskStarted(2.0, 3, "b"),
        TaskEnded(3.0, 3, "FAILED"),
    ):
        tally.take(fact)
        shown.append(round(tally.progress({}), 1))

    assert shown == [0.0, 0.0, 25.0, 50.0, 50.0, 50.0, 83.3]
    assert tally.seconds_left({}, 3.0) == pytest.approx(0.6)
    assert tally.progress({"c": 50}) == pytest.approx(83.3, abs=0.1)  # more than was known: the value does not fall
    tally.take(RunEnded(4.0, "FAILED"))
    assert tally.progress({}) < 100
    tally.take(RunEnded(4.0, "COMPLETED"))
    assert tally.progress({}) == 100


def test_the_time_left_is_not_told_while_a_loop_may_go_on() -> None:
    tally = RunProgress([spec("each", in_loop=True), spec("last")])
    tally.take(RunStarted(0.0))
    tally.take(TaskStarted(0.0, 1, "each"))
    tally.take(TaskEnded(5.0, 1, "COMPLETED"))

    assert tally.seconds_left({"each": 1}, 5.0) is None
    assert tally.seconds_left({"each": 10}, 5.0) == pytest.approx(50.0)  # ten were submitted, and one remains
    tally.take(TaskStarted(5.0, 2, "last"))
    assert tally.seconds_left({"each": 1}, 5.0) is not None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.00042, "0.4 ms"),
        (0.0124, "12 ms"),
        (0.999, "1.0 s"),
        (3.44, "3.4 s"),
        (59.99, "1:00"),
        (125, "2:05"),
        (3725, "1:02:05"),
    ],
)
def test_durations_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_lines_fit_the_terminal() -> None:
    assert fitted("abc\x1b[31m\nd", 80) == "abc [31m d"
    assert fitted("日本語のタスク", 9) == "日本語の…"
    assert width_of("日本") == 4 and width_of("e\u0301") == 1
    assert fitted("x" * 100, 10) == "x" * 9 + "…"


if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)
