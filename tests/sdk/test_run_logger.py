"""Run loggers: however a program sets up logging, each line is in the run's log, once; and ``log_prints``."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import io
import logging
import logging.config
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from perfect_client import disable_run_logger, flow, get_run_logger, task
from perfect_client.core import run_logger, runtime
from perfect_client.core.context import get_run_context
from perfect_client.core.states import State
from perfect_client.logging import get_logger
from perfect_client.logging.loggers import flow_run_logger, task_run_logger

from tests.sdk.story import Story, python

Execute = Callable[..., Story]
FORMAT = "%(flow_name)s|%(flow_run_id)s|%(flow_run_name)s|%(task_name)s|%(task_run_name)s|%(message)s"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a test configures is undone."""
    root = logging.getLogger()
    loggers = [root, *run_logger.loggers(), get_logger()]
    before = [(one, one.level, list(one.handlers), list(one.filters), one.propagate) for one in loggers]
    others = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger) and not one.disabled]
    yield
    for one, level, handlers, filters, propagate in before:
        one.handlers[:], one.filters[:], one.propagate = handlers, filters, propagate
        one.setLevel(level)
    for one in others:
        one.disabled = False


def told(story: Story) -> List[Tuple[str, int, Optional[int]]]:
    return [(line.message, line.level, line.task) for line in story.logged]


@task
def logs(text: str = "in the task") -> None:
    get_run_logger().warning(text)


@flow(name="Logging")
def logs_itself() -> None:
    get_run_logger().info("in the flow")
    logs()


BOTH = [("in the flow", 20, None), ("in the task", 30, 1)]


# ------------------------------------------------------------------------------------------------ set up in many ways


def configured(**changes: Any) -> Dict[str, Any]:
    stdout = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "f"}
    whole: Dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": True,
        "formatters": {"f": {"format": FORMAT}},
        "handlers": {"h": stdout},
        "root": {"level": "INFO", "handlers": ["h"]},
    }
    whole.update(changes)
    return whole


NULL = {"h": {"class": "logging.NullHandler"}}
WAYS = {
    "to stdout": configured(),
    "elsewhere": configured(handlers=NULL),
    "without the root": configured(root={}),
    "not passed on": configured(
        handlers=NULL,
        loggers={
            "perfect.flow_runs": {"propagate": False, "handlers": ["h"]},
            "perfect.task_runs": {"propagate": False},
        },
    ),
    "all below perfect": configured(loggers={"perfect": {"handlers": ["h"], "level": "INFO", "propagate": False}}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "inside", "between"])
def test_each_line_is_in_the_runs_log_once_however_logging_is_set_up(execute: Execute, way: str, when: str) -> None:
    @flow(name="Logging")
    def whole() -> None:
        logger = get_run_logger()
        if when == "inside":
            logging.config.dictConfig(WAYS[way])
            logger = get_run_logger()
        elif when == "between":
            logging.config.dictConfig(WAYS[way])
        logger.info("in the flow")
        logs()

    if when == "before":
        logging.config.dictConfig(WAYS[way])

    assert told(execute(whole)) == BOTH


def test_a_librarys_lines_stay_when_the_flow_sets_up_logging(execute: Execute) -> None:
    @flow
    def whole() -> None:
        logging.config.dictConfig(configured(handlers=NULL, disable_existing_loggers=False))
        logging.getLogger("some.library").error("kept")
        logging.basicConfig(force=True, stream=io.StringIO())
        logging.getLogger("some.library").error("kept too")

    assert execute(whole).lines == ["kept", "kept too"]


def test_after_the_run_the_root_is_as_before(execute: Execute) -> None:
    root = logging.getLogger()
    before = list(root.handlers)

    execute(logs_itself)

    assert root.handlers == before and "removeHandler" not in vars(root) and run_logger.sink is None


def test_a_formatter_may_name_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    @flow(name="Named", flow_run_name="today")
    def named() -> str:
        get_run_logger().info("one")
        logs("two")
        return str(runtime.flow_run.id)

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    for one in run_logger.loggers():
        one.addHandler(handler)

    id = named()
    get_run_logger().info("outside")

    assert stream.getvalue().splitlines() == [
        "Named|%s|today|||one" % id,
        "Named|%s|today|logs|logs-0|two" % id,
        "|||||outside",
    ]


def test_a_filter_of_the_program_may_drop_and_change_lines(execute: Execute) -> None:
    class Redacting(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg = record.msg.replace("secret", "***")
            return "drop" not in record.msg

    run_logger.loggers()[1].addFilter(Redacting())

    @flow
    def whole() -> None:
        for text in ("a secret", "drop me", "kept"):
            logs(text)

    assert execute(whole).lines == ["a ***", "kept"]


def test_a_class_of_loggers_of_the_program_keeps_its_methods() -> None:
    code = """if True:
        import logging
        class Mine(logging.Logger):
            def trace(self, text): self.log(25, "trace " + text)
        logging.setLoggerClass(Mine)
        logging.getLogger("perfect.flow_runs")
        from perfect_client import get_run_logger
        get_run_logger().logger.trace("it")
    """
    assert python("-c", code).stderr.endswith(b"trace it\n")


# ------------------------------------------------------------------------------------------------ whose lines they are


def test_lines_from_threads_and_loops_are_there_once_with_their_task(execute: Execute) -> None:
    @task
    async def later(number: int) -> None:
        await asyncio.sleep(0)
        get_run_logger().info("later %d", number)

    @task
    def threaded() -> None:
        logger = get_run_logger()
        thread = threading.Thread(target=lambda: logger.info("thread"))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(logger.info, "pool").result()
            pool.submit(lambda: get_run_logger().info("asked for in a pool")).result()

    @flow
    async def whole() -> None:
        threaded()
        await asyncio.gather(later(1), later(2))

    story = execute(whole)

    assert sorted(told(story), key=lambda line: line[0]) == [
        ("asked for in a pool", 20, None),
        ("later 1", 20, 2),
        ("later 2", 20, 3),
        ("pool", 20, 1),
        ("thread", 20, 1),
    ]
    assert all(line.time > 0 for line in story.logged)


def test_the_names_are_those_of_runs_and_tasks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logs_itself()

    assert [(r.name, r.getMessage(), r.levelno) for r in caplog.records] == [
        ("perfect.flow_runs", "in the flow", 20),
        ("perfect.task_runs", "in the task", 30),
    ]
    assert [record.pathname for record in caplog.records] == [__file__, __file__]


def test_what_is_given_stands_in_each_record(caplog: pytest.LogCaptureFixture) -> None:
    @flow(name="Given")
    def given() -> None:
        logger = get_run_logger(customer="acme")
        logger.info("one", extra={"order": 7})
        logger.getChild("part").info("two")

    with caplog.at_level(logging.INFO):
        given()

    one, two = caplog.records
    assert (vars(one)["customer"], vars(one)["order"], vars(one)["flow_name"]) == ("acme", 7, "Given")
    assert (two.name, vars(two)["customer"]) == ("perfect.flow_runs.part", "acme")


def test_a_logger_can_be_had_for_a_context_and_for_a_hooks_run(caplog: pytest.LogCaptureFixture) -> None:
    def of_task(task: Any, run: Any, state: State) -> None:
        task_run_logger(run).info("task hook")

    def of_flow(flow: Any, run: Any, state: State) -> None:
        flow_run_logger(run, flow).info("flow hook")

    @task(on_completion=[of_task], task_run_name="named")
    def inner() -> Any:
        return get_run_context()

    @flow(name="Hooked", on_completion=[of_flow])
    def hooked() -> None:
        get_run_logger(inner()).info("of the context")

    with caplog.at_level(logging.INFO):
        hooked()

    assert [(vars(r)["flow_name"], vars(r)["task_run_name"], r.getMessage()) for r in caplog.records] == [
        ("Hooked", "named", "task hook"),
        ("Hooked", "named", "of the context"),
        ("Hooked", "", "flow hook"),
    ]


def test_a_disabled_run_logger_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        with disable_run_logger():
            logs.fn()
            assert not get_run_logger().isEnabledFor(logging.CRITICAL)
        logs.fn("afterwards")

    assert caplog.messages == ["afterwards"]


# ---------------------------------------------------------------------------------------------------------- log_prints


def test_a_print_is_a_record_from_its_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow(log_prints=True)
    def prints() -> int:
        print("one", 2, sep="-")
        print("no end", end="")
        print("to stderr", file=sys.stderr)
        frame = inspect.currentframe()
        assert frame is not None
        return frame.f_lineno

    with caplog.at_level(logging.INFO):
        line = prints()

    assert [(r.name, r.getMessage(), r.levelno) for r in caplog.records] == [
        ("perfect.flow_runs", "one-2", 20),
        ("perfect.flow_runs", "no end", 20),
        ("perfect.flow_runs", "to stderr", 30),
    ]
    assert [(r.pathname, r.lineno) for r in caplog.records] == [(__file__, line - n) for n in (5, 4, 3)]
    assert capsys.readouterr().out == ""


def says(text: str) -> None:
    print(text)


@pytest.mark.parametrize("way", ["call", "submit", "map"])
def test_the_task_decides_else_its_flow_else_the_flow_around(
    way: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(owner: Any, text: str) -> None:
        if way == "call":
            owner(text)
        elif way == "submit":
            owner.submit(text).result()
        else:
            owner.map([text]).result()

    @flow
    def below() -> None:
        print("inherited by a sub-flow")

    @flow(log_prints=True)
    def yes() -> None:
        run(task(says), "inherited")
        run(task(log_prints=False)(says), "refused")
        below()

    @flow
    def no() -> None:
        run(task(says), "by default")
        run(task(log_prints=True)(says), "asked for")

    with caplog.at_level(logging.INFO):
        yes()
        no()

    assert caplog.messages == ["inherited", "inherited by a sub-flow", "asked for"]
    assert capsys.readouterr().out == "refused\nby default\n"


def test_print_is_itself_again_afterwards() -> None:
    real = builtins.print

    @flow(log_prints=True)
    def fails() -> None:
        assert builtins.print is not real
        raise ValueError

    @task(log_prints=True)
    def yields() -> Iterator[int]:
        assert builtins.print is not real
        yield 1

    with pytest.raises(ValueError):
        fails()
    assert list(yields()) == [1]  # type: ignore[arg-type]
    assert builtins.print is real


@pytest.mark.parametrize("wanted", [True, False, None])
def test_in_a_workers_run_a_print_is_a_line_either_way_and_once(execute: Execute, wanted: Optional[bool]) -> None:
    real = builtins.print

    @flow(name="Printing", log_prints=wanted)
    def prints() -> None:
        assert builtins.print is real
        print("in the flow")
        task(log_prints=wanted)(says)("in the task")

    assert told(execute(prints)) == [("in the flow", 20, None), ("in the task", 20, 1)]


def test_prints_of_a_generator_are_records_too(caplog: pytest.LogCaptureFixture) -> None:
    @flow(log_prints=True)
    def yields() -> Iterator[int]:
        print("first")
        yield 1
        print("second")

    with caplog.at_level(logging.INFO):
        assert list(yields()) == [1]  # type: ignore[arg-type]

    assert caplog.messages == ["first", "second"]


def test_a_print_that_no_logger_wants_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    @flow(log_prints=True)
    def prints() -> None:
        print("still there")

    with disable_run_logger():
        prints()

    assert capsys.readouterr().out == "still there\n"
