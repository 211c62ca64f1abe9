"""A secret does not show itself, and no fact that reaches the spool contains it."""

from __future__ import annotations

import json
import logging
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from perfect_client import Secret, artifacts, flow
from perfect_client.analysis import describe
from perfect_client.artifacts import tables
from perfect_client.execution import executor
from perfect_client.execution.child import Emitter, Stop
from perfect_client.journal.spool import Reader, Writer
from perfect_client.questions import pauses
from perfect_client.questions.forms import Form
from perfect_client.schema import records
from perfect_client.schema import secrets as schema_secrets
from perfect_client.schema.masking import is_secret, mask, restore, secrets_in
from perfect_client.schema.secrets import Hidden, fact_without_secrets
from perfect_client.schema.signature import bind, parameters_schema
from perfect_client.wire.messages import Logged, OfferRun, RunEnded, TaskEnded
from perfect_client.worker.pipes import Output

from tests.worker import secret_flows
from tests.worker.leaking import leaks_of, unlike_words


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Hidden()
    monkeypatch.setattr(schema_secrets, "of_this_process", fresh)
    for module in (records, artifacts, tables, describe):
        monkeypatch.setattr(module, "of_this_process", fresh)


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
    schema_secrets.hide("hunter2")
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
        ("db_password", "x", True),
        ("API-Key", "x", True),
        ("accessToken", "x", True),
        ("authorization", "x", True),
        ("credentials", {"a": 1}, True),
        ("max_tokens", 500, False),
        ("use_password", True, False),
        ("password", 1234, True),
        ("keyboard", "x", False),
        ("author", "x", False),
    ],
)
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

    assert mask(value, schema) == shown
    assert restore(shown, value, schema) == value
    assert secrets_in(value, schema) == ["a", "b", "c", "d"]


def test_it_is_hidden_where_it_is_unpickled_too() -> None:
    kept = pickle.dumps({"key": Secret("kept-in-a-result")})
    schema_secrets.of_this_process = Hidden()

    pickle.loads(kept)

    assert schema_secrets.of_this_process.without("kept-in-a-result") == "***"


def test_whoever_is_to_know_knows_a_secret_before_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_secrets, "_listeners", [])
    told: List[Any] = []
    Secret("known-before")

    schema_secrets.tell_new_secrets(told.extend)
    Secret({"a": [b"new-bytes", 123456]})
    Secret("known-before")

    assert told == ["known-before", b"new-bytes", "123456"]


def test_a_secret_that_could_not_be_told_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may arrive while it is told; made again it is told again."""
    told: List[Any] = []

    def tell(secrets: List[Any]) -> None:
        told.extend(secrets)
        if len(told) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(schema_secrets, "_listeners", [tell])

    with pytest.raises(KeyboardInterrupt):
        Secret("made-twice")
    Secret("made-twice")

    assert told == ["made-twice", "made-twice"]


@dataclass
class Login:
    user: str = "ana"
    pin: Secret[str] = field(default_factory=lambda: Secret("pin-in-code"))
    password: str = "password-in-code"


def test_defaults_of_any_depth_are_hidden_and_not_described() -> None:
    def fn(
        login: Login = Login(),  # noqa: B008
        options: Dict[str, Any] = {"api_key": "key-in-code", "depth": 3},  # noqa: B006
        address: str = "https://u:" + Secret("in-an-address").get() + "@h",
        depth: int = 3,
    ) -> None: ...

    schema = parameters_schema(fn)
    bind(fn, {}, {})

    assert "in-code" not in repr(schema) and "in-an-address" not in repr(schema)
    assert schema["properties"]["depth"]["default"] == 3 and schema["required"] == []
    for secret in ("pin-in-code", "password-in-code", "key-in-code", "in-an-address"):
        assert schema_secrets.of_this_process.without("<%s>" % secret) == "<***>"


def test_a_pydantic_default_is_hidden() -> None:
    pydantic = pytest.importorskip("pydantic")

    default = pydantic.SecretStr("of-pydantic")

    def fn(key: Any = default) -> None: ...

    fn.__annotations__ = {"key": pydantic.SecretStr}
    bind(fn, {}, {})

    assert schema_secrets.of_this_process.without("of-pydantic") == "***"


def test_what_a_person_fills_in_is_hidden() -> None:
    form = Form(Login)

    found = form.value({"password": "typed-password", "pin": "typed-pin"})

    assert found.pin == Secret("typed-pin") and "in-code" not in repr(form.schema)
    assert schema_secrets.of_this_process.without("typed-password typed-pin") == "*** ***"


def test_a_class_that_refuses_a_value_does_not_show_it(execute: Any) -> None:
    @dataclass
    class Picky:
        key: Secret[str]

        def __post_init__(self) -> None:
            raise ValueError("what is %s for a key?" % self.key.get())

    @flow
    def picks(picky: Any) -> None: ...

    picks.fn.__annotations__["picky"] = Picky

    facts: List[Any] = []
    executor.execute(
        picks,
        OfferRun(1, "r", "picks", {"picky": {"key": "refused-key"}}),
        lambda fact: facts.append(fact_without_secrets(fact)),
    )

    assert "what is *** for a key?" in facts[-1].error and "refused-key" not in repr(facts)


# --------------------------------------------------------------------------------------- all ways within one process


INSIDE = [
    "print",
    "in pieces",
    "stderr",
    "logging",
    "thread",
    "long line",
    "error",
    "long error",
    "task",
    "task error",
    "long result",
    "names",
    "progress",
    "sub-flow",
    "markdown",
    "table",
    "link",
    "exit",
]
MADE = {
    "text": lambda text: Secret(text).get(),
    "bytes": lambda text: Secret(text.encode()).get().decode(),
    "nested": lambda text: Secret({"a": [("b", text)]}).get()["a"][0][1],
    "dataclass": lambda text: Secret(Login(text)).get().user,
    "unpickled": lambda text: pickle.loads(pickle.dumps(Secret(text))).get(),
    "parameter": None,
}


@flow(flow_run_name="run of {seed}")
def tells(made: str, way: str, form: str, seed: str = "", key: Secret[str] = Secret("none")) -> Any:  # noqa: B008
    make: Any = MADE[made]
    value = key.get() if make is None else make(bytes.fromhex(seed).decode())
    return secret_flows.WAYS[way](secret_flows.FORMS[form](value))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(list(MADE)),
    st.sampled_from(INSIDE),
    st.sampled_from(list(secret_flows.FORMS)),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r"), min_size=12, max_size=40).map(
        unlike_words
    ),
)
def test_no_fact_of_a_run_holds_it(tmp_path: Path, made: str, way: str, form: str, secret: str) -> None:
    assume(len(set(secret)) > 8)
    spool = tmp_path / "1.facts"
    bell, ring = os.pipe()
    given_key = {"key": secret} if made == "parameter" else {}
    order = OfferRun(
        1, "r", "tells", {"made": made, "way": way, "form": form, "seed": secret.encode().hex(), **given_key}
    )

    executor.execute(tells, order, Emitter(Writer(spool), ring, lambda: None, Stop()))

    facts = [json.loads(record) for record in Reader(spool).read(1, 10_000, 1 << 24)]
    spool.unlink()
    assert facts[-1]["type"] == "RunEnded" and leaks_of(secret, facts) == []
    for done in (bell, ring):
        os.close(done)


def test_what_a_person_is_asked_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "of_this_process", schema_secrets.of_this_process)
    monkeypatch.setattr(pauses.context, "current_run", lambda: object())
    key = Secret("key-of-the-question")

    _, body = pauses._asked_for(str, None, None, "use %s?" % key.get())

    assert body["description"] == "use ***?"
