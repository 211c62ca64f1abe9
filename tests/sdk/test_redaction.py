"""A known secret is found however a program writes it, whatever stands around it, and where a string was cut in it."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.parse
from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from perfect_client import Secret
from perfect_client.core.previews import preview, traceback_text
from perfect_client.schema.redaction import MAX_HIDDEN, Hidden
from perfect_client.schema.sentences import preview_value
from perfect_client.wire.messages import clean_text
from perfect_client.worker.pipes import LineCutter

from tests.worker.leaking import leaks_of, unlike_words
from tests.worker.secret_flows import FORMS

CHARACTERS = st.characters(blacklist_categories=("Cs",))
SECRETS = st.text(CHARACTERS, min_size=8, max_size=60).map(unlike_words).filter(lambda text: len(set(text)) > 6)
AROUND = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


def basic(before: str, secret: str, after: str) -> str:
    return base64.b64encode((before + secret + after).encode()).decode()


@given(SECRETS, st.sampled_from(list(FORMS)), AROUND, AROUND)
@example('p&ss <w\u00f6rd> "it\'s" + \\ 1/2', "json in json", "\\", "'")
def test_no_way_of_writing_lets_it_out(secret: str, form: str, before: str, after: str) -> None:
    assume(leaks_of(secret, [before + after]) == [])
    text = before + FORMS[form](secret) + after

    told = Hidden([secret]).without(text)

    assert leaks_of(secret, [told]) == [] and "***" in told


@given(SECRETS, AROUND, AROUND, st.booleans())
def test_it_is_found_inside_of_base64_at_each_alignment(secret: str, before: str, after: str, urlsafe: bool) -> None:
    assume(leaks_of(secret, [before + after]) == [])
    code = basic(before, secret, after)
    code = code.replace("+", "-").replace("/", "_").rstrip("=") if urlsafe else code

    assert leaks_of(secret, ["Authorization: Basic %s." % Hidden([secret]).without(code)]) == []


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_of_base64_only_the_secret_goes(before: str) -> None:
    code = basic("someone:" + before, "hunter2-hunter2", ":the end")

    told = Hidden(["hunter2-hunter2"]).without("x %s y" % code)

    left, right = told.split("***")
    assert left.startswith("x " + code[:10]) and right.endswith(code[-10:] + " y")


CUTS = {
    "a line": lambda text: clean_text(text, 300),
    "a result": preview,
    "a list": lambda text: preview([text, text.encode()]),
    "a refusal": preview_value,
    "a traceback": lambda text: traceback_text(ValueError(text * 200)),
    "past Python": lambda text: LineCutter(200).feed(text.encode("utf-8", "backslashreplace") + b"\n")[0],
}


@given(SECRETS, st.sampled_from(list(FORMS)), st.sampled_from(list(CUTS)), st.integers(0, 300))
@example('p&ss <w\u00f6rd> "it\'s" + \\ 1/2', "json in json", "a result", 2)
@example("00012~3&\x1b", "xml", "a list", 0)
def test_a_cut_within_a_secret_leaves_nothing_of_it(secret: str, form: str, cut: str, shift: int) -> None:
    assume("\n" not in secret and "\r" not in secret)
    text = "." * shift + FORMS[form](secret) * (1 + 700 // len(FORMS[form](secret)))

    assert leaks_of(secret, [Hidden([secret]).without(CUTS[cut](text))]) == []


@dataclass
class Login:
    user: str
    pins: List[Any] = field(default_factory=list)


Pair = namedtuple("Pair", "first second")
Color = Enum("Color", {"RED": "the-enum-value"})
UUID_TEXT = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("one-text", ["one-text"]),
        (b"some-bytes\xff", ["some-bytes\\xff", repr(b"some-bytes\xff"), base64.b64encode(b"some-bytes\xff").decode()]),
        (bytearray(b"array-of-bytes"), ["array-of-bytes"]),
        (123456789, ["123456789"]),
        (3.14159, ["3.14159"]),
        ({"a": [{"b": ("deep-in-it",)}]}, ["deep-in-it"]),
        (Login("the-user", ["the-pin", 4711]), ["the-user", "the-pin", "4711"]),
        (Pair("in-a-pair", None), ["in-a-pair"]),
        (Color.RED, ["the-enum-value"]),
        (UUID(UUID_TEXT), [UUID_TEXT]),
        (Decimal("12345.678"), ["12345.678"]),
        (Path("/in/a/path"), ["/in/a/path"]),
        (Secret({"again": Secret("twice-hidden")}), ["twice-hidden"]),
        ("line one\r\n  line two\n", ["line one", "line two", "line one\r\n  line two"]),
    ],
)
def test_what_is_secret_in_a_value(value: Any, texts: List[str]) -> None:
    for text in texts:
        assert Hidden([value]).without("<%s>" % text).replace("b'", "").strip("<>'") == "***", text


def test_pydantics_secrets_are_opened() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", key=(pydantic.SecretStr, ...), other=(Dict[str, str], ...))

    hidden = Hidden([pydantic.SecretStr("of-pydantic"), model(key="in-a-model", other={"a": "beside-it"})])

    assert hidden.without("of-pydantic in-a-model beside-it") == "*** *** ***"


def test_secrets_that_overlap_have_one_mask() -> None:
    assert Hidden(["abcdef", "defghi", "abcd"]).without("xabcdefghix") == "x***x"


def test_what_only_resembles_a_secret_stays() -> None:
    hidden = Hidden(["hunter2", "abc", 'say "x"'])

    for text in ("hunter", "hunter3 abc", "Connecting...", "hun\u2026", "a%20b", "x\\y", ""):
        assert hidden.without(text) == text


def test_a_value_is_cleaned_to_its_leaves_and_names() -> None:
    hidden = Hidden(["hunter2", 12345])

    assert hidden.clean({"hunter2": [("a hunter2", 12345, 1, None, True, 2.5)]}) == {
        "***": [["a ***", "***", 1, None, True, 2.5]]
    }


def test_the_oldest_step_aside() -> None:
    hidden = Hidden("secret-%05d" % number for number in range(MAX_HIDDEN + 1))

    assert hidden.without("secret-00000 secret-00001 secret-%05d" % MAX_HIDDEN) == "secret-00000 *** ***"


@pytest.mark.parametrize("secret", ["\\" * 40, "\x1f" * 30 + "\\\"'" * 20, "a" * 5000, "e\u00e9" * 600, "-\n" * 3000])
def test_no_secret_makes_it_slow(secret: str) -> None:
    text = json.dumps(json.dumps(json.dumps(secret[:-1] + "x"))) * 3 + "..." + "\\" * 500 + "\u2026" + secret[:-1] * 2

    began = time.process_time()
    Hidden([secret]).without(text[:60_000])

    assert time.process_time() - began < 3.0


def test_addresses_are_found_as_programs_write_them() -> None:
    secret = "a b&c/\u00e9:@+%"

    hidden = Hidden([secret])

    for quote in (urllib.parse.quote, urllib.parse.quote_plus):
        for safe in ("", "/", "!'()*"):
            assert hidden.without("https://u:%s@h" % quote(secret, safe=safe)) == "https://u:***@h"
            lower = re.sub("%..", lambda found: found.group().lower(), quote(secret, safe=safe))
            assert hidden.without(lower) == "***"
