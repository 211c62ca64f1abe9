"""Lines of loguru and structlog have their own level, message and task, and come once."""

from __future__ import annotations

import json
import logging
from typing import Any, Callable, List

import pytest
from perfect_client import flow, task
from perfect_client.core.other_loggers import level_of_structlog

from tests.sdk.story import Story, python

Execute = Callable[..., Story]

EXECUTE = """
import json, sys
from perfect_client import Flow, flow, task
from perfect_client.execution import executor; from perfect_client.wire import messages
def tell(body):
    facts = []
    made = flow(name="f")(body)
    executor.execute(made, messages.OfferRun(1, "0123456789abcdef", "f", {}), facts.append)
    lines = [[f.message, f.level, f.task] for f in facts if type(f) is messages.Logged]
    sys.__stdout__.write(json.dumps(lines))
"""


def lines_of(program: str) -> List[Any]:
    """What a program tells, in a Python of its own: these packages set up themselves for the whole process."""
    said = python("-c", EXECUTE + program)
    found: List[Any] = json.loads(said.stdout)
    return found


LOGURU = """
@task
def works():
    logger.error("in a task")
def body():
    logger.debug("fine")
    logger.info("a")
    logger.success("b")
    logger.warning("c {}", 1)
    works()
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("d")
"""


@pytest.mark.parametrize("when", ["before", "inside"])
def test_lines_of_loguru_have_their_level_and_task(when: str) -> None:
    pytest.importorskip("loguru", reason="loguru is not installed")
    program = "from loguru import logger\n" if when == "before" else ""
    program += LOGURU
    if when == "inside":
        program = program.replace("def body():", "def body():\n    global logger\n    from loguru import logger")
    lines = lines_of(program + "\ntell(body)")

    assert [(message.split("\n")[0], level, number) for message, level, number in lines] == [
        ("fine", 10, None),
        ("a", 20, None),
        ("b", 20, None),
        ("c 1", 30, None),
        ("in a task", 40, 1),
        ("d", 40, None),
    ]
    assert "ZeroDivisionError" in lines[-1][0]


def test_a_format_of_the_programs_own_is_kept() -> None:
    pytest.importorskip("loguru", reason="loguru is not installed")
    program = """
from loguru import logger
logger.remove()
logger.add(sys.stderr, format="{extra[user]}: {message}", level="INFO")
def body():
    logger.bind(user="ana").warning("hello")
    logger.bind(user="ana").debug("not this")
tell(body)
"""
    assert lines_of(program) == [["ana: hello", 30, None]]


@pytest.mark.parametrize("force", [False, True])
def test_records_of_logging_that_go_to_loguru_come_once(force: bool) -> None:
    pytest.importorskip("loguru", reason="loguru is not installed")
    program = """
import logging
from loguru import logger
class Intercept(logging.Handler):
    def emit(self, record):
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())
%slogging.basicConfig(handlers=[Intercept()], level=0, force=True)
def body():
    %slogging.basicConfig(handlers=[Intercept()], level=0, force=True)
    logging.getLogger("lib").error("from logging")
    logger.info("from loguru")
tell(body)
""" % (("#", "") if force else ("", "#"))
    assert [line[:2] for line in lines_of(program)] == [["from logging", 40], ["from loguru", 20]]


def test_lines_of_structlog_have_their_level() -> None:
    pytest.importorskip("structlog", reason="structlog is not installed")
    program = """
import structlog
log = structlog.get_logger()
def body():
    log.debug("fine")
    log.info("a", key=1)
    log.warning("b")
    log.error("c")
    structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()])
    structlog.get_logger().critical("d", n=1)
    print("plain")
tell(body)
"""
    assert [level for _, level, _ in lines_of(program)] == [10, 20, 30, 40, 50, 20]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-02 03:04:05 [error    ] no luck   key=1", 40),
        ("[warning  ] hm", 30),
        ("2026-01-02T03:04:05.123456Z [info     ] a", 20),
        ('{"event": "x", "level": "critical"}', 50),
        ('{"level": 3}', 7),
        ('{"level": broken', 7),
        ("an [error] in the text", 7),
        ("", 7),
        ("\x1b[2m2026-01-02 03:04:05\x1b[0m [\x1b[31m\x1b[1merror    \x1b[0m] \x1b[1mx\x1b[0m", 40),
    ],
)
def test_a_level_is_read_from_a_line(monkeypatch: pytest.MonkeyPatch, line: str, level: int) -> None:
    monkeypatch.setitem(__import__("sys").modules, "structlog", logging)

    assert level_of_structlog(line, 7) == level


def test_loggers_that_a_configuration_disabled_are_in_the_log(execute: Execute) -> None:
    import logging.config

    early = logging.getLogger("early")
    settings = {"version": 1, "disable_existing_loggers": True, "root": {"level": "INFO"}}
    logging.config.dictConfig(settings)
    assert early.disabled

    @task
    def speaks() -> None:
        early.info("in a task")

    @flow
    def both() -> None:
        early.warning("first")
        logging.config.dictConfig(settings)
        speaks()

    told = execute(both)

    assert [(line.message, line.level, line.task) for line in told.logged] == [
        ("first", 30, None),
        ("in a task", 20, 1),
    ]
    assert early.disabled
    early.disabled = False
