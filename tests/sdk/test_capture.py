"""What is printed and logged inside a run becomes its lines: each once, whole, in order, with level and task."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from typing import Any, Callable, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfect_client import flow, get_run_logger, task
from perfect_client.output.capture import _Line
from perfect_client.wire import messages

from tests.sdk.story import Story, execute_flow, python

Execute = Callable[..., Story]


def lines_of(body: Callable[[], Any], **options: Any) -> List[str]:
    return execute_flow(flow(name="prints", **options)(body)).lines


# -------------------------------------------------------------------------------------------------------- printing


def test_each_printed_line_is_a_line() -> None:
    assert lines_of(lambda: print("one\ntwo", "three", sep="-")) == ["one", "two-three"]


def test_an_empty_line_is_a_line() -> None:
    assert lines_of(lambda: print()) == [""]


def test_standard_output_is_info_and_standard_error_a_warning(execute: Execute) -> None:
    @flow
    def both() -> None:
        print("out")
        print("err", file=sys.stderr)

    assert [(line.message, line.level) for line in execute(both).logged] == [("out", 20), ("err", 30)]


def test_a_line_knows_its_task(execute: Execute) -> None:
    @task
    def speaks() -> None:
        print("inside")

    @flow
    def around() -> None:
        print("before")
        speaks()
        print("after")

    assert [(line.message, line.task) for line in execute(around).logged] == [
        ("before", None),
        ("inside", 1),
        ("after", None),
    ]


def test_a_line_that_is_printed_in_parts_is_one_line() -> None:
    def body() -> None:
        for part in "abc":
            print(part, end="", flush=True)
        print()

    assert lines_of(body) == ["abc"]


def test_an_unfinished_line_is_told_at_the_end() -> None:
    assert lines_of(lambda: print("no end", end="")) == ["no end"]


def test_an_unfinished_line_is_told_when_the_flow_fails(execute: Execute) -> None:
    @flow
    def fails() -> None:
        print("last words", end="")
        raise ValueError

    told = execute(fails)

    assert told.lines[0] == "last words"
    assert [line.split("\n")[0] for line in told.lines[1:]] == ["Flow 'fails' failed: ValueError"]
    assert told.outcome == "FAILED"


def test_a_progress_bar_is_one_line() -> None:
    def body() -> None:
        for percent in range(101):
            sys.stderr.write("\r%3d%% done" % percent)
            sys.stderr.flush()
        sys.stderr.write("\n")

    assert lines_of(body) == ["100% done"]


def test_windows_line_ends_are_line_ends() -> None:
    def body() -> None:
        sys.stdout.write("one\r\ntwo\r")
        sys.stdout.write("\nthree\n")

    assert lines_of(body) == ["one", "two", "three"]


def test_a_very_long_line_is_cut_with_the_exact_number_of_bytes() -> None:
    (line,) = lines_of(lambda: print("x" * 100_000))

    kept, _, more = line.partition("… (")
    assert len(line.encode()) <= 16384
    assert more == "%d bytes more)" % (100_000 - len(kept))


def test_a_very_long_line_in_parts_is_cut_the_same() -> None:
    def body() -> None:
        for _ in range(1000):
            print("äöü\x00" * 25, end="")
        print()

    assert lines_of(body) == [messages.clean_text("äöü\x00" * 25_000)]


def test_a_hundred_megabytes_without_an_end_cost_no_memory() -> None:
    line, piece = _Line(), "x" * 1_000_000

    for _ in range(100):
        line.add(piece)

    assert len(line.head) <= 16384 and not line.text
    assert line.take() == messages.clean_text("x" * 100_000_000)


def test_nul_and_lone_surrogates_are_made_harmless() -> None:
    assert lines_of(lambda: print("a\x00b\ud800c")) == ["a\u2400b\\ud800c"]


def test_binary_writes_are_lines_of_the_same_stream() -> None:
    def body() -> None:
        print("text ", end="")
        sys.stdout.buffer.write("gr".encode() + b"\xc3")
        sys.stdout.buffer.write(b"\xbc\xc3\x9fe\xff\n")
        sys.stdout.buffer.flush()

    assert lines_of(body) == ["text grüße\\xff"]


def test_a_wrapper_around_the_buffer_works_and_may_be_closed() -> None:
    def body() -> None:
        wrapper = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", write_through=True)
        wrapper.write("wrapped\n")
        wrapper.close()
        print("still here")

    assert lines_of(body) == ["wrapped", "still here"]


def test_the_streams_answer_like_files(execute: Execute) -> None:
    @flow
    def asks() -> Any:
        out: Any = sys.stdout
        out.reconfigure(line_buffering=True)
        out.flush()
        out.writelines(["a", "b\n"])
        return [out.isatty(), out.writable(), out.readable(), out.encoding, out.closed]

    told = execute(asks)

    assert told.ended.result == "[False, True, False, 'utf-8', False]"
    assert told.lines == ["ab"]


def test_writing_something_else_than_text_is_a_type_error(execute: Execute) -> None:
    @flow
    def wrong() -> None:
        sys.stdout.write(b"x")  # type: ignore[arg-type]

    assert execute(wrong).ended.error.startswith("TypeError: write() argument must be str")


def test_each_thread_has_its_own_line(execute: Execute) -> None:
    turn = threading.Barrier(2)

    def talk(letter: str) -> None:
        for _ in range(5):
            print(letter, end="")
            turn.wait(10)
        print()

    @flow
    def both() -> None:
        threads = [threading.Thread(target=talk, args=(letter,)) for letter in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(execute(both).lines) == ["aaaaa", "bbbbb"]


def test_no_line_is_lost_or_torn_by_many_threads(execute: Execute) -> None:
    @flow
    def many() -> None:
        def talk(number: int) -> None:
            for line in range(200):
                print("thread", number, "line", line)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = execute(many).lines

    assert len(lines) == 1600
    for number in range(8):
        own = [line for line in lines if line.startswith("thread %d " % number)]
        assert own == ["thread %d line %d" % (number, line) for line in range(200)]


def test_a_subprocess_gets_a_real_file(execute: Execute, capfd: pytest.CaptureFixture[str]) -> None:
    @flow
    def calls() -> None:
        subprocess.run([sys.executable, "-c", "print('from below')"], stdout=sys.stdout, check=True)

    with capfd.disabled():
        pass
    real = sys.stdout
    try:
        sys.stdout = os.fdopen(os.dup(1), "w")
        told = execute(calls)
        sys.stdout.close()
    finally:
        sys.stdout = real

    assert told.outcome == "COMPLETED"
    assert "from below" in capfd.readouterr().out


def test_redirecting_inside_a_run_works() -> None:
    import contextlib

    def body() -> Any:
        with contextlib.redirect_stdout(io.StringIO()) as caught:
            print("hidden")
        print("seen", caught.getvalue().strip())

    assert lines_of(body) == ["seen hidden"]


def test_a_warning_is_a_line() -> None:
    code = """if True:
        import warnings
        from perfect_client import flow
        from perfect_client.execution import executor; from perfect_client.wire import messages
        facts = []
        careful = flow(name="x")(lambda: warnings.warn("careful"))
        executor.execute(careful, messages.OfferRun(1, "r", "x"), facts.append)
        print(facts[1].message, facts[1].level)"""

    told = python("-c", code).stdout

    assert b"UserWarning: careful 30" in told


def pieces_of(text: str, cuts: List[int]) -> List[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]


def collapsed(text: str) -> List[str]:
    """What a string is in lines, said in one go: the law that the capture keeps piece by piece."""
    *whole, rest = text.split("\n")
    shown = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in [*whole, rest]]
    return [messages.clean_text(line) for line in (shown if shown[-1] else shown[:-1])]


@given(st.text(st.sampled_from("ab\r\n\x00é\ud800")), st.lists(st.integers(0, 1000), max_size=8))
def test_lines_do_not_depend_on_how_they_are_cut_into_writes(text: str, cuts: List[int]) -> None:
    def body() -> None:
        for piece in pieces_of(text, cuts):
            sys.stdout.write(piece)

    assert lines_of(body) == collapsed(text)


@given(st.lists(st.text(max_size=9000), max_size=6))
def test_a_long_line_in_pieces_is_cut_as_the_whole_would_be(pieces: List[str]) -> None:
    pieces = [piece.replace("\n", " ").replace("\r", " ") for piece in pieces]
    line = _Line()

    for piece in pieces:
        line.add(piece)

    assert line.take() == messages.clean_text("".join(pieces))


# --------------------------------------------------------------------------------------------------------- logging


def test_the_run_logger_keeps_the_level(execute: Execute) -> None:
    @flow
    def logs() -> None:
        log = get_run_logger()
        log.debug("hidden")
        log.info("with %s", "arguments")
        log.warning("careful")
        log.error("bad")

    assert [(line.message, line.level) for line in execute(logs).logged] == [
        ("with arguments", 20),
        ("careful", 30),
        ("bad", 40),
    ]


def test_any_librarys_logger_becomes_lines() -> None:
    assert lines_of(lambda: logging.getLogger("some.library").info("hello")) == ["hello"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("DEBUG", ["d", "i", "w"]), ("info", ["i", "w"]), ("WARNING", ["w"]), (10, ["d", "i", "w"]), ("loud", ["i", "w"])],
)
def test_the_configuration_sets_the_level(level: Any, expected: List[str]) -> None:
    def body() -> None:
        for log in (get_run_logger(),):
            log.debug("d")
            log.info("i")
            log.warning("w")

    assert lines_of(body, configurations={"only": {"log_level": level}}) == expected


def test_an_exception_is_logged_with_its_traceback() -> None:
    def body() -> None:
        try:
            raise ValueError("inside")
        except ValueError:
            get_run_logger().exception("it failed")

    (line,) = lines_of(body)
    assert line.startswith("it failed\nTraceback") and line.endswith("ValueError: inside")


def test_a_librarys_own_handler_does_not_double_its_lines(execute: Execute) -> None:
    log = logging.getLogger("chatty")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[chatty] %(message)s"))
    log.addHandler(handler)
    real = handler.stream

    @flow
    def chats() -> None:
        log.info("once")

    try:
        told = execute(chats)
        assert [(line.message, line.level) for line in told.logged] == [("once", 20)]
        assert handler.stream is real
    finally:
        log.removeHandler(handler)


def test_a_handler_that_is_made_inside_the_run_does_not_double_either(execute: Execute) -> None:
    log = logging.getLogger("chatty.inside")

    @flow
    def chats() -> None:
        handler = logging.StreamHandler()
        log.addHandler(handler)
        log.warning("once")
        log.removeHandler(handler)

    assert [(line.message, line.level) for line in execute(chats).logged] == [("once", 30)]


def test_a_record_that_its_handler_must_format_is_formatted(execute: Execute) -> None:
    class Rendering(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "rendered %(event)s" % record.msg

    log = logging.getLogger("structured")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Rendering())
    log.addHandler(handler)

    @flow
    def logs() -> None:
        log.info({"event": "hello"})

    try:
        assert execute(logs).lines == ["rendered hello"]
    finally:
        log.removeHandler(handler)


def test_a_logger_that_does_not_propagate_keeps_its_level(execute: Execute) -> None:
    log = logging.getLogger("alone")
    log.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    log.addHandler(handler)

    @flow
    def chats() -> None:
        log.error("alone")

    try:
        assert [(line.message, line.level) for line in execute(chats).logged] == [("alone", 40)]
    finally:
        log.removeHandler(handler)
        log.propagate = True


def test_basic_config_inside_a_run_changes_nothing() -> None:
    def body() -> None:
        logging.basicConfig(level=logging.DEBUG)
        logging.info("once")

    assert lines_of(body) == ["once"]


def test_a_bad_log_call_does_not_stop_the_run(execute: Execute) -> None:
    @flow
    def bad() -> None:
        logging.raiseExceptions = False
        get_run_logger().info("%d", "x")
        logging.raiseExceptions = True

    assert execute(bad).outcome == "COMPLETED"


def test_caplog_sees_the_run_logger(execute: Execute, caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def logs() -> None:
        get_run_logger().info("for caplog")

    with caplog.at_level(logging.INFO):
        execute(logs)
        get_run_logger().info("outside")

    assert [record.getMessage() for record in caplog.records] == ["for caplog", "outside"]


def test_outside_a_run_the_logger_writes_to_standard_error() -> None:
    code = "from perfect_client import get_run_logger as g; g().info('hello'); g().debug('no'); print('out')"

    done = python("-c", code)

    assert done.stdout == b"out\n"
    assert done.stderr.endswith(b"INFO    hello\n")


def test_the_run_logger_is_an_adapter_of_a_logger() -> None:
    log = get_run_logger()
    assert isinstance(log, logging.LoggerAdapter) and isinstance(log.logger, logging.Logger)


def test_a_forked_child_logs_and_prints_to_the_real_streams() -> None:
    code = """if True:
        import logging, os, sys
        from perfect_client import flow
        from perfect_client.execution import executor; from perfect_client.wire import messages
        logging.basicConfig(level=logging.INFO, format="formatted %(message)s") if "basic" in sys.argv else None
        def body():
            if os.fork() == 0:
                print("printed"); logging.getLogger("x").info("logged"); os._exit(0)
            os.wait()
        facts = []
        executor.execute(flow(name="x")(body), messages.OfferRun(1, "r", "x"), facts.append)
        print(len(facts))"""

    plain, basic = python("-W", "ignore", "-c", code), python("-W", "ignore", "-c", code, "basic")

    assert (plain.stdout, plain.stderr) == (b"printed\n2\n", b"logged\n")
    assert (basic.stdout, basic.stderr) == (b"printed\n2\n", b"formatted logged\n")


def test_threads_that_ended_are_forgotten_but_not_their_last_words(execute: Execute) -> None:
    @flow
    def many() -> int:
        for number in range(600):
            thread = threading.Thread(target=print, args=("x",), kwargs={"end": "" if number % 100 == 0 else "\n"})
            thread.start()
            thread.join()
        stream: Any = sys.stdout
        return len(stream._lines)

    told = execute(many)

    assert len(told.lines) == 600
    assert int(told.ended.result) < 300
