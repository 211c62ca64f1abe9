"""``pause_flow_run`` and ``resume_flow_run``: a run waits for a person, who may fill in a form."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from perfect_client.core import context
from perfect_client.errors import FlowPauseTimeout, MissingContextError, NotPausedError
from perfect_client.questions import client
from perfect_client.questions.forms import Form
from perfect_client.questions.question import Body
from perfect_client.schema.encoding import to_json
from perfect_client.schema.secrets import of_this_process

HOUR_S = 3600.0


def pause_flow_run(
    wait_for_input: Any = None,
    timeout: Optional[float] = HOUR_S,
    poll_interval: float = 10,
    key: Optional[str] = None,
    description: Optional[str] = None,
) -> Any:
    """Wait here until a person lets the run go on; it is PAUSED meanwhile, and keeps its process and its slot.

    With ``wait_for_input``, a type (a ``RunInput``, a dataclass, a pydantic model, ``str``, a ``Literal`` …), the
    person fills in a form, and what is returned is a value of that type. ``description`` tells the person what is
    asked, ``key`` names the pause, ``timeout`` is in seconds, None: for ever. ``poll_interval`` is taken for programs
    written for Prefect: nothing is polled. In asynchronous code an awaitable. Raises ``FlowPauseTimeout``.
    """
    form, body = _asked_for(wait_for_input, timeout, key, description)
    if client.in_coroutine():
        return _pause_later(form, body, timeout)
    try:
        return _filled(form, client.wait(client.current_line().ask("pause", body), timeout))
    except TimeoutError:
        raise _too_late(timeout) from None


async def apause_flow_run(
    wait_for_input: Any = None,
    timeout: Optional[float] = HOUR_S,
    poll_interval: float = 10,
    key: Optional[str] = None,
    description: Optional[str] = None,
) -> Any:
    """``pause_flow_run`` that is always awaited."""
    return await _pause_later(*_asked_for(wait_for_input, timeout, key, description), timeout)


async def _pause_later(form: Form, body: Body, timeout: Optional[float]) -> Any:
    try:
        return _filled(form, await client.wait_later(client.current_line().ask("pause", body), timeout))
    except TimeoutError:
        raise _too_late(timeout) from None


def _asked_for(
    wanted: Any, timeout: Optional[float], key: Optional[str], description: Optional[str]
) -> Tuple[Form, Body]:
    if context.current_run() is None:
        raise MissingContextError("pause_flow_run() is called in a flow: there is no run here that could pause.")
    form = Form(wanted)
    told = of_this_process.without(description or form.description)
    body: Body = {"schema": form.schema, "key": key or "", "description": told, "timeout": timeout}
    return form, body


def _filled(form: Form, body: Body) -> Any:
    return form.value(body.get("input") or {})


def _too_late(timeout: Optional[float]) -> FlowPauseTimeout:
    return FlowPauseTimeout("nobody let the run go on within %g s" % (timeout or 0))


def resume_flow_run(flow_run_id: Any, run_input: Optional[Dict[str, Any]] = None) -> Any:
    """Let a paused run go on, with what its form asks for. In asynchronous code an awaitable.

    Raises ``NotPausedError``, and ``ValueError`` with a sentence when the input does not fit.
    """
    return _resume(flow_run_id, run_input, None)


async def aresume_flow_run(flow_run_id: Any, run_input: Optional[Dict[str, Any]] = None) -> None:
    """``resume_flow_run`` that is always awaited."""
    await _resume(flow_run_id, run_input, True)


def _resume(flow_run_id: Any, run_input: Optional[Dict[str, Any]], later: Optional[bool]) -> Any:
    body = {"run": str(flow_run_id), "input": to_json(dict(run_input or {}))}
    return client.ask("resume", body, _gone_on, later=later)


def _gone_on(body: Body) -> None:
    if body.get("not_paused"):
        raise NotPausedError(str(body["not_paused"]))
