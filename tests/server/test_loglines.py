"""The log says of suspicious requests one line of each kind now and then, without a traceback."""

from __future__ import annotations

import logging

import pytest

from perfect_site.server.loglines import SeldomSuspicious
from runs.db import outages


def record(name: str, text: str = "Invalid HTTP_HOST header: %s") -> logging.LogRecord:
    error = (ValueError, ValueError("x"), None)
    return logging.LogRecord(name, logging.ERROR, "file.py", 1, text, ("evil.invalid",), error)


def test_who_sends_suspicious_requests_gets_a_line_now_and_then_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom, hosts = SeldomSuspicious(), "django.security.DisallowedHost"
    first, other = record(hosts), record("django.security.TooManyFieldsSent")

    assert seldom.filter(first) and seldom.filter(other)
    assert [seldom.filter(record(hosts)) for _ in range(3)] == [False] * 3
    assert first.getMessage() == "Invalid HTTP_HOST header: evil.invalid" and first.exc_info is None

    monkeypatch.setattr(outages, "LOG_EVERY", -1.0)
    again = SeldomSuspicious()
    assert again.filter(record(hosts)) and again.filter(record(hosts))


def test_how_many_were_left_out_is_told_with_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom, now = SeldomSuspicious(), [0.0]
    monkeypatch.setitem(seldom._sparing, "django.security.X", outages.Sparing(lambda: now[0]))
    last = record("django.security.X")

    told = [seldom.filter(record("django.security.X")) for _ in range(4)]
    now[0] = outages.LOG_EVERY
    assert (told, seldom.filter(last)) == ([True, False, False, False], True)
    assert last.getMessage() == "Invalid HTTP_HOST header: evil.invalid (3 more of this kind)"


def test_every_other_line_is_as_it_was() -> None:
    line = record("runs.db.threads")
    assert [SeldomSuspicious().filter(line) for _ in range(2)] == [True, True]
    assert line.exc_info is not None
