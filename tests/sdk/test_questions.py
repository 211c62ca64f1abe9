"""What code asks: over a line to a server, and where there is none."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import os
import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, List, Optional

import pytest
from perfect_client import RunInput, Variable, flow, pause_flow_run, resume_flow_run, task
from perfect_client.concurrency import asyncio as limits_later
from perfect_client.concurrency import concurrency, rate_limit
from perfect_client.concurrency import sync as limits_now
from perfect_client.core import runtime
from perfect_client.errors import FlowPauseTimeout, MissingContextError, NotPausedError, Unanswered
from perfect_client.questions import offline
from perfect_client.questions.client import Line
from perfect_client.questions.forms import Form
from perfect_client.questions.limits import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from perfect_client.questions.pauses import apause_flow_run, aresume_flow_run
from perfect_client.wire import messages

from perfect_client.execution import executor  # isort: skip


class Server:
    """Answers a run's questions through a real pipe, as a supervisor passes them on."""

    def __init__(self, answer: Callable[[messages.Asked], Optional[Dict[str, Any]]]) -> None:
        self.answer = answer
        self.facts: List[Any] = []
        self.incoming, self._out = os.pipe()

    def __call__(self, fact: Any) -> None:
        self.facts.append(fact)
        if isinstance(fact, messages.Asked):
            body = self.answer(fact)
            if body is not None:
                self.say(fact.ask, body)

    def say(self, ask: int, body: Dict[str, Any]) -> None:
        os.write(self._out, json.dumps([ask, body]).encode() + b"\n")

    def of(self, kind: type) -> List[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def run(self, wanted: Any, **parameters: Any) -> Any:
        order = messages.OfferRun(7, "0123456789abcdef", wanted.name, parameters)
        outcome = executor.execute(wanted, order, self, answers=self.incoming)
        os.close(self._out)
        ended = self.of(messages.RunEnded)[0]
        return outcome, ended.error or ended.result


def granted(fact: messages.Asked) -> Dict[str, Any]:
    return {}


def never(fact: messages.Asked) -> None:
    return None


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("limit", [concurrency, limits_now.concurrency, limits_later.concurrency])
def test_a_block_asks_for_its_slots_and_gives_them_back(limit):
    @flow
    def held():
        with limit(["db", "api", "db"], occupy=2):
            pass

    server = Server(granted)

    assert server.run(held)[0] == "COMPLETED"
    (asked,) = server.of(messages.Asked)
    assert (asked.kind, asked.body) == ("concurrency", {"names": ["db", "api"], "occupy": 2, "strict": False})
    assert [fact.ask for fact in server.of(messages.Released)] == [asked.ask]


def test_a_block_gives_back_when_it_raises():
    @flow
    def fails():
        with concurrency("db"):
            raise ValueError("no")

    server = Server(granted)

    assert server.run(fails) == ("FAILED", "ValueError: no")
    assert len(server.of(messages.Released)) == 1


def test_a_coroutine_holds_without_keeping_the_others_waiting():
    @task
    async def held(n: int) -> int:
        async with concurrency("db"):
            return n

    @flow
    async def together() -> List[int]:
        return await asyncio.gather(*[held(n) for n in range(5)])

    server = Server(granted)
    assert server.run(together) == ("COMPLETED", "[0, 1, 2, 3, 4]")
    assert sorted(fact.ask for fact in server.of(messages.Released)) == [1, 2, 3, 4, 5]
    assert {fact.task for fact in server.of(messages.Asked)} == {1, 2, 3, 4, 5}


def test_no_slot_in_time_withdraws_the_question():
    @flow
    def late():
        with concurrency("db", timeout_seconds=0.01):
            pass

    server = Server(never)

    _, error = server.run(late)
    assert "AcquireConcurrencySlotTimeoutError: no free slot of 'db' within 0.01 s" in error
    assert [fact.ask for fact in server.of(messages.Released)] == [1]


def test_no_slot_in_time_in_a_coroutine():
    @flow
    async def late():
        async with concurrency("db", timeout_seconds=0.01):
            pass

    server = Server(never)
    assert "AcquireConcurrencySlotTimeoutError" in server.run(late)[1]
    assert [fact.ask for fact in server.of(messages.Released)] == [1]


def test_a_tasks_deadline_ends_its_wait_for_a_slot():
    @task(timeout_seconds=0.05)
    def late():
        with concurrency("db"):
            pass

    @flow
    def waits():
        late()

    server = Server(never)
    assert "exceeded its timeout" in server.run(waits)[1]
    assert len(server.of(messages.Released)) == 1


def test_what_can_never_be_had_is_an_error_with_the_servers_sentence():
    @flow
    def refused():
        with concurrency("db", strict=True):
            pass

    server = Server(lambda fact: {"error": "there is no limit 'db'"})
    assert server.run(refused) == ("FAILED", "ConcurrencySlotAcquisitionError: there is no limit 'db'")


def test_rate_limits_in_threads_and_coroutines():
    @flow
    def now():
        limits_now.rate_limit("api")
        rate_limit("api", occupy=3)

    @flow
    async def later():
        await limits_later.rate_limit("api")
        await rate_limit("api")

    for wanted in (now, later):
        server = Server(granted)
        assert server.run(wanted)[0] == "COMPLETED"
        assert [fact.kind for fact in server.of(messages.Asked)] == ["rate_limit"] * 2
        assert server.of(messages.Asked)[1].heard == 1


@pytest.mark.parametrize("names", ["", [1], ["x"] * 3 + list("abcdefghijklmnopqrstuvwxyz"), None, "x" * 201])
def test_names_that_are_none_are_refused(names):
    with pytest.raises((ValueError, TypeError)):
        concurrency(names)


@pytest.mark.parametrize("occupy", [0, -1, 1.5, True, "2"])
def test_slots_that_are_no_number_are_refused(occupy):
    with pytest.raises(ValueError, match="occupy is a whole number"):
        rate_limit("x", occupy=occupy)


def test_without_a_server_nobody_limits(home):
    @flow
    def free():
        with concurrency("db"):
            rate_limit("api")
        return 1

    assert free() == 1
    with pytest.raises(ConcurrencySlotAcquisitionError, match="kept by a server"), concurrency("db", strict=True):
        pass


# ---------------------------------------------------------------------------------------------------------- variables


def test_variables_without_a_server_are_kept_in_the_home(home):
    assert Variable.get("x") is None
    assert Variable.get("x", default=3) == 3

    Variable.set("x", {"a": (1, 2)})

    assert Variable.get("x") == {"a": [1, 2]}
    with pytest.raises(ValueError, match="overwrite=True"):
        Variable.set("x", 2)
    Variable.set("x", 2, overwrite=True)
    assert Variable.get("x") == 2
    assert (Variable.unset("x"), Variable.unset("x")) == (True, False)
    assert (home / "variables.json").stat().st_mode & 0o777 == 0o600


def test_variables_of_many_threads_are_all_kept(home):
    threads = [threading.Thread(target=Variable.set, args=("v%d" % n, n)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [Variable.get("v%d" % n) for n in range(20)] == list(range(20))


def test_variables_in_coroutines_are_awaited(home):
    @flow
    async def later():
        await Variable.set("x", 1)
        await Variable.aset("x", 2, overwrite=True)
        return [
            await Variable.get("x"),
            await Variable.aget("x"),
            await Variable.aunset("x"),
            await Variable.unset("x"),
        ]

    assert asyncio.run(later()) == [2, 2, True, False]


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, 5, None, "ä", "a/b"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="a variable's name"):
        Variable.get(name)


@pytest.mark.parametrize("value", [object(), float("nan"), "x" * 70_000, {"a": {1j}}])
def test_a_value_that_json_cannot_say_is_refused(home, value):
    with pytest.raises(ValueError, match="variable 'x'"):
        Variable.set("x", value)


def test_a_sync_flow_inside_a_loop_gets_values_and_not_coroutines(home):
    Variable.set("x", 5)

    @flow
    def plain():
        return Variable.get("x")

    async def main():
        return plain()

    assert asyncio.run(main()) == 5


# ------------------------------------------------------------------------------------------------------------- pauses


class Approval(RunInput):
    ok: bool
    why: str = "because"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Place:
    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("wanted", "given_", "value"),
    [
        (None, {}, None),
        (Approval, {"ok": True}, Approval(True)),
        (Approval, {"ok": "false", "why": "no"}, Approval(False, "no")),
        (Approval.with_initial_data(ok=True, why="yes"), {}, Approval(True, "yes")),
        (Place, {"x": "3"}, Place(3)),
        (int, {"value": "3"}, 3),
        (Colour, {"value": "red"}, Colour.RED),
        (List[Place], {"value": [{"x": 1}]}, [Place(1)]),
        (Optional[int], {"value": None}, None),
    ],
)
def test_a_form_asks_for_a_type_and_gives_a_value_of_it(wanted, given_, value):
    form = Form(wanted)

    found = form.value(given_)

    assert form.schema["type"] == "object"
    assert found == value or dataclasses.asdict(found) == dataclasses.asdict(value)


def test_an_initial_value_of_a_field_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no field 'nope'"):
        Form(Approval.with_initial_data(nope=1))


def test_a_pause_asks_and_returns_what_was_filled_in():
    @flow
    def asks():
        return pause_flow_run(wait_for_input=Approval.with_initial_data("Ship it?", why="soon"), timeout=60, key="ship")

    server = Server(lambda fact: {"input": {"ok": True}})

    assert server.run(asks) == ("COMPLETED", "Approval(ok=True, why='soon')")
    (asked,) = server.of(messages.Asked)
    assert (asked.body["description"], asked.body["key"], asked.body["timeout"]) == ("Ship it?", "ship", 60)
    assert asked.body["schema"]["required"] == ["ok"]


def test_a_pause_that_nobody_answers_ends_with_its_timeout():
    @flow
    def asks():
        pause_flow_run(timeout=0.01)

    @flow
    async def asks_later():
        await pause_flow_run(timeout=0.01)

    for wanted in (asks, asks_later):
        server = Server(never)
        assert server.run(wanted)[1] == "FlowPauseTimeout: nobody let the run go on within 0.01 s"
        assert len(server.of(messages.Released)) == 1


def test_a_pause_outside_a_run_is_refused():
    with pytest.raises(MissingContextError, match="no run here"):
        pause_flow_run()


def test_without_a_server_the_same_process_lets_a_run_go_on(home):
    ids: List[str] = []
    waiting = threading.Event()

    @flow
    def asks():
        ids.append(runtime.flow_run.id)
        waiting.set()
        return pause_flow_run(wait_for_input=int, timeout=20)

    results: List[Any] = []
    thread = threading.Thread(target=lambda: results.append(asks()))
    thread.start()
    assert waiting.wait(20)
    while not results:
        try:
            with pytest.raises(ValueError, match="must be a whole number"):
                resume_flow_run(ids[0], {"value": "five"})
            resume_flow_run(ids[0], {"value": 5})
            break
        except NotPausedError:  # it is about to be
            continue
    thread.join(20)

    assert results == [5]
    with pytest.raises(NotPausedError):
        resume_flow_run(ids[0])


def test_without_a_server_a_pause_ends_with_its_timeout_too(home):
    @flow
    async def asks():
        await apause_flow_run(timeout=0.01)

    with pytest.raises(FlowPauseTimeout):
        asyncio.run(asks())
    assert offline._paused == {}


def test_letting_another_run_go_on_asks_the_server():
    @flow
    def lets():
        resume_flow_run("other", {"ok": True})

    @flow
    async def lets_later():
        await aresume_flow_run("other")

    server = Server(granted)
    assert server.run(lets)[0] == "COMPLETED"
    assert server.of(messages.Asked)[0].body == {"run": "other", "input": {"ok": True}}
    assert "NotPausedError: it is RUNNING" in Server(lambda f: {"not_paused": "it is RUNNING"}).run(lets_later)[1]


# --------------------------------------------------------------------------------------------------------------- line


def test_answers_that_come_twice_late_or_for_nobody_do_no_harm():
    @flow
    def asks():
        try:
            with concurrency("db", timeout_seconds=0.01):
                pass
        except AcquireConcurrencySlotTimeoutError:
            server.say(1, {})
            server.say(99, {})
        with concurrency("db"):
            server.say(2, {})

    server = Server(lambda fact: {} if fact.ask == 2 else None)

    assert server.run(asks) == ("COMPLETED", "")


def test_errors_are_the_servers_sentences():
    @flow
    def asks():
        return Variable.get("x")

    assert Server(lambda f: {"error": "older than the worker"}).run(asks)[1] == "Unanswered: older than the worker"
    assert issubclass(Unanswered, ValueError)


@contextmanager
def _line():
    server = Server(never)
    from perfect_client.core.runs import Run

    run = Run(id="r", flow_name="f", emit=server)
    yield server, Line(run, server.incoming)
    os.close(server._out)


def test_what_is_heard_is_told_with_the_next_question():
    with _line() as (server, line):
        first, second = line.ask("a", {}), line.ask("b", {})
        server.say(2, {})
        second.answer.result(20)
        line.ask("c", {})
        server.say(1, {})
        first.answer.result(20)
        server.say(3, {})
        line.ask("d", {})

    heard = [fact.heard for fact in server.of(messages.Asked)]
    assert heard[:3] == [0, 0, 0] and heard[3] in (2, 3)


def test_on_a_terminal_the_form_is_asked_line_by_line_until_it_fits(home, monkeypatch, capfd):
    lines = iter(["maybe\n", "\n", "true\n", "so\n"])

    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return next(lines)

    monkeypatch.setattr("sys.stdin", Terminal())

    @flow
    def asks():
        return pause_flow_run(wait_for_input=Approval, timeout=20, description="Ship it?")

    assert asks() == Approval(True, "so")
    said = capfd.readouterr().err
    assert "Paused: Ship it?" in said and said.count("ok: ") == 2 and "must be true or false" in said
