"""A secret does not show itself, and no fact that reaches the spool contains it."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from perfect_client import Secret, hiding
from perfect_client.child import Emitter, Stop
from perfect_client.hiding import Hidden, fact_without_secrets
from perfect_client.masking import is_secret, masked, restored, secrets_in
from perfect_client.output import Output
from perfect_client.protocol import Logged, RunEnded, TaskEnded
from perfect_client.signature import bind, parameters_schema
from perfect_client.spool import Writer


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "of_this_process", Hidden())


def test_it_shows_itself_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("open sesame")

    logging.getLogger("x").warning("the key is %s", secret)

    said = [repr(secret), str(secret), "%s" % secret, f"{secret}", f"{secret:>20}", repr({"a": [secret]}), caplog.text]
    assert not any("sesame" in text for text in said)
    assert repr(secret) == "Secret('***')" and secret.get() == "open sesame"
    assert secret == Secret("open sesame") and pickle.loads(pickle.dumps(secret)) == secret


@pytest.mark.parametrize(
    ("hint", "kind", "value"), [(Secret[str], "string", "abcdef"), (Secret[int], "integer", 12345)]
)
def test_a_secret_parameter_is_marked_and_read_as_a_secret(hint: Any, kind: str, value: Any) -> None:
    def fn(key: Any, other: Any = Secret("in the code")) -> None: ...  # noqa: B008

    fn.__annotations__ = {"key": hint, "other": hint}
    properties = parameters_schema(fn)["properties"]

    assert properties["key"] == {"title": "key", "type": kind, "writeOnly": True, "format": "password"}
    assert "default" not in properties["other"]
    assert bind(fn, {"key": value}, {})["key"] == Secret(value)


def test_what_was_bound_stands_in_no_fact() -> None:
    def fn(key: Secret[str], options: Optional[Dict[str, Any]] = None, db_password: str = "default-pw") -> None: ...

    bind(fn, {"key": "hunter2", "options": {"api_key": "nested-key", "depth": "visible"}}, {"token": "config-token"})
    facts: List[Any] = [
        Logged(0.0, "hunter2 nested-key default-pw visible", 20),
        TaskEnded(0.0, 1, "FAILED", "ValueError: hunter2", "line\nhunter2"),
        RunEnded(0.0, "FAILED", reason="hunter2", error="hunter2", traceback="hunter2", result="'hunter2'"),
    ]

    told = [fact_without_secrets(fact) for fact in facts]

    assert told[0].message == "*** *** *** visible"
    assert not any("hunter2" in repr(fact) for fact in told)


def test_every_line_of_a_secret_and_its_quoted_forms_are_taken_out() -> None:
    hidden = Hidden(['first line\nsecond "line"'])

    assert hidden.without("a first line b") == "a *** b"
    assert hidden.without(r"first line\nsecond \"line\"") == "***"
    assert Hidden(["abc"]).without("abc") == "abc"  # three characters stand in too many words


def test_the_spool_and_the_raw_output_never_hold_it(tmp_path: Path) -> None:
    hiding.hide("hunter2")
    bell, ring = os.pipe()
    emit = Emitter(Writer(tmp_path / "1.facts"), ring, lambda: None, Stop())
    emit(Logged(0.0, "the key is hunter2", 20))
    output = Output(tmp_path / "1.output", clean=Hidden(["hunter2"]).without)
    pipe = output.pipe(20)
    os.write(pipe, b"raw hunter2\n")
    os.close(pipe)
    while output.open_pipes:
        output.drain()
    output.close()

    kept = (tmp_path / "1.facts").read_bytes() + (tmp_path / "1.output").read_bytes()
    assert b"hunter2" not in kept and b"the key is ***" in kept and b"raw ***" in kept
    assert "hunter2" not in output.last_words
    os.close(bell)
    os.close(ring)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("db_password", "x", True), ("API-Key", "x", True), ("accessToken", "x", True), ("authorization", "x", True),
        ("credentials", {"a": 1}, True), ("max_tokens", 500, False), ("use_password", True, False),
        ("password", 1234, True), ("keyboard", "x", False), ("author", "x", False),
    ],
)  # fmt: skip
def test_a_name_tells_a_secret(name: str, value: Any, secret: bool) -> None:
    assert is_secret(name, {}, value) is secret


def test_masking_follows_references_lists_and_alternatives() -> None:
    schema = {
        "$defs": {"Key": {"type": "string", "writeOnly": True}},
        "properties": {
            "keys": {"type": "array", "items": {"$ref": "#/$defs/Key"}},
            "one": {"anyOf": [{"$ref": "#/$defs/Key"}, {"type": "null"}]},
            "pair": {"prefixItems": [{"type": "integer"}, {"$ref": "#/$defs/Key"}]},
        },
    }
    value = {"keys": ["a", "b"], "one": "c", "pair": [1, "d"], "plain": ["e"]}
    shown = {"keys": ["***", "***"], "one": "***", "pair": [1, "***"], "plain": ["e"]}

    assert masked(value, schema) == shown
    assert restored(shown, value, schema) == value
    assert secrets_in(value, schema) == ["a", "b", "c", "d"]
