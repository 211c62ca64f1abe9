"""What the server would answer to the code's questions, where there is none: a flow that is called directly.

Variables stand in ``PERFECT_HOME/variables.json``; nobody limits; a pause waits for ``resume_flow_run`` in the same
process, or asks on the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from concurrent.futures import Future
from typing import Any, Callable, Dict, Tuple

from perfect_client.core import context
from perfect_client.questions.question import Body, Question
from perfect_client.schema.validation import fit_all

_lock = threading.RLock()
_paused: Dict[str, Tuple["Future[Body]", Body]] = {}  # by the run's id


def ask(kind: str, body: Body) -> Question:
    """The same questions as a server is asked, with the same answers."""
    answer: Future[Body] = Future()
    run = context.current_run()
    run_id = run.root.id if run is not None else ""
    try:
        found = _ANSWERS[kind](run_id, body, answer)
    except (ValueError, OSError) as wrong:
        found = {"error": str(wrong)}
    if found is not None and not answer.done():
        answer.set_result(found)
    return Question(answer, lambda reason: _released(run_id, answer))


def _released(run_id: str, answer: "Future[Body]") -> None:
    with _lock:
        if _paused.get(run_id, (None,))[0] is answer:
            del _paused[run_id]


# -------------------------------------------------------------------------------------------------------- variables


def _file() -> str:
    home = os.path.expanduser(os.environ.get("PERFECT_HOME") or "~/.perfect")
    os.makedirs(home, mode=0o700, exist_ok=True)
    return os.path.join(home, "variables.json")


def _read() -> Dict[str, Any]:
    try:
        with open(_file(), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError("%s holds no JSON object" % _file())
    return found


def _change(change: Callable[[Dict[str, Any]], Body]) -> Body:
    """Read, change and write: one process at a time, and a kill leaves the old text or the new one."""
    import fcntl  # heavy: no, but not there on Windows, where variables need a server

    with _lock, open(_file() + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        values = _read()
        answer = change(values)
        fresh = _file() + ".new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(values, file)
        os.replace(fresh, _file())
    return answer


def _get(run_id: str, body: Body, answer: Any) -> Body:
    values = _read()
    return {"value": values[body["name"]]} if body["name"] in values else {}


def _set(run_id: str, body: Body, answer: Any) -> Body:
    def change(values: Dict[str, Any]) -> Body:
        if body["name"] in values and not body["overwrite"]:
            raise ValueError("Variable %r is set already; overwrite=True replaces it." % body["name"])
        values[body["name"]] = body["value"]
        return {}

    return _change(change)


def _unset(run_id: str, body: Body, answer: Any) -> Body:
    return _change(lambda values: {"unset": values.pop(body["name"], _set) is not _set})


# ----------------------------------------------------------------------------------------------------------- limits


def _grant(run_id: str, body: Body, answer: Any) -> Body:
    if body["strict"]:
        raise ValueError("There is no limit %r: limits are kept by a server." % body["names"][0])
    return {}


# ----------------------------------------------------------------------------------------------------------- pauses


def _pause(run_id: str, body: Body, answer: "Future[Body]") -> Any:
    with _lock:
        _paused[run_id] = answer, body
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write("Paused%s.\n" % (": " + body["description"] if body["description"] else ""))
        threading.Thread(target=_ask_person, args=(run_id, body, answer), daemon=True, name="perfect-pause").start()


def _ask_person(run_id: str, body: Body, answer: "Future[Body]") -> None:
    """One line a field, until it fits: JSON where it is JSON, else the text itself."""
    with contextlib.suppress(EOFError, OSError):
        while not answer.done():
            try:
                _let_go_on(run_id, _filled_in(body["schema"]))
            except ValueError as wrong:
                sys.stderr.write("%s\n" % wrong)


def _filled_in(schema: Dict[str, Any]) -> Dict[str, Any]:
    given = {}
    for name, field in schema["properties"].items():
        default = " [%s]" % json.dumps(field["default"]) if "default" in field else ""
        text = _line_for("%s%s: " % (name, default))
        if text:
            given[name] = _value(text)
    if not schema["properties"]:
        _line_for("Press Enter to go on. ")
    return given


def _line_for(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _resume(run_id: str, body: Body, answer: Any) -> Body:
    if not _let_go_on(body["run"], body["input"] or {}):
        return {"not_paused": "Run %s is not paused in this process." % body["run"]}
    return {}


def _let_go_on(run_id: str, given: Dict[str, Any]) -> bool:
    """Whether the run is paused. Raises ``ValueError`` for input that does not fit the form."""
    with _lock:
        answer, body = _paused.get(run_id, (None, {}))
        if answer is None:
            return False
        answer.set_result({"input": fit_all(body["schema"], given)})
        del _paused[run_id]
    return True


_ANSWERS: Dict[str, Callable[[str, Body, Any], Any]] = {
    "variable.get": _get,
    "variable.set": _set,
    "variable.unset": _unset,
    "concurrency": _grant,
    "rate_limit": _grant,
    "pause": _pause,
    "resume": _resume,
}
