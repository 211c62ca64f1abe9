"""Weekly Executive Report: right numbers, a real PDF, an e-mail that arrives."""

from __future__ import annotations

import base64
import email
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from email import policy
from pathlib import Path
from typing import Any

import example_churn as churn
import example_health as health
import example_kpis as kpis_of
import example_mail as mail
import example_report as pages
import pytest
from example_warehouse import writing

MONDAY = date(1998, 6, 22)
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def quiet(share: float, text: str) -> None:
    pass


def render(warehouse: Path, path: Path, compress: bool = False) -> int:
    kpis = kpis_of.compute_kpis(warehouse, MONDAY)
    trends = kpis_of.compute_trends(warehouse, MONDAY, 26, 8)
    return pages.render(path, kpis, trends, created="today", compress=compress, report=quiet)


@contextmanager
def smtp_server(refuse: str = "") -> Iterator[dict[str, Any]]:
    """A mail server for one e-mail: `url`, and what it was told in `commands` and `message`."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    told: dict[str, Any] = {"url": f"smtp://127.0.0.1:{listener.getsockname()[1]}", "commands": [], "message": b""}

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as wire:
            wire.write(b"220 ready\r\n")
            for line in iter(wire.readline, b""):
                told["commands"].append(line.decode().strip())
                verb = line[:4].upper()
                if refuse and verb == b"RCPT":
                    wire.write(b"550 " + refuse.encode() + b"\r\n")
                elif verb == b"DATA":
                    wire.write(b"354 go\r\n")
                    told["message"] = b"".join(iter(wire.readline, b".\r\n"))
                    wire.write(b"250 taken\r\n")
                else:
                    wire.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        thread.join(timeout=10)
        listener.close()


def test_the_kpis_are_those_of_the_warehouse(warehouse: Path) -> None:
    kpis = kpis_of.compute_kpis(warehouse, MONDAY)

    assert (kpis.purchases, kpis.customers, kpis.cds) == (69_659, 23_570, 167_881)
    assert (kpis.week.purchases, kpis.week.customers, kpis.week.cents) == (381, 338, 1_306_332)
    assert kpis.before.start == date(1998, 6, 15)
    sentence = "$13,063 from 381 purchases by 338 customers in the week of 22 June – 28 June 1998, down 17.8 %"
    assert pages.headline(kpis).startswith(sentence)


def test_the_weeks_of_the_chart_add_up_to_everything(warehouse: Path) -> None:
    trends = kpis_of.compute_trends(warehouse, date(1998, 6, 29), 79, 3)

    assert sum(week.purchases for week in trends.weeks) == 69_659
    assert [cohort.month for cohort in trends.cohorts] == ["1997-01", "1997-02", "1997-03"]
    assert trends.top[0].cents >= trends.top[1].cents >= trends.top[2].cents
    assert trends.model is None


def test_the_week_is_the_last_complete_one_unless_chosen(warehouse: Path) -> None:
    assert kpis_of.choose_week(warehouse, "") == MONDAY
    assert kpis_of.choose_week(warehouse, "1997-05-08") == date(1997, 5, 5)
    for wrong, sentence in (("yesterday", "write a date as YYYY-MM-DD"), ("2001-01-01", "has sales from 1997-01-01")):
        with pytest.raises(ValueError, match=sentence):
            kpis_of.choose_week(warehouse, wrong)


def test_charts_that_would_not_fit_are_refused(warehouse: Path) -> None:
    with pytest.raises(ValueError, match="weeks is 0: choose 1 to 104"):
        kpis_of.compute_trends(warehouse, MONDAY, 0, 8)
    with pytest.raises(ValueError, match="top_customers is 99: choose 1 to 15"):
        kpis_of.compute_trends(warehouse, MONDAY, 26, 99)


def test_the_report_is_a_pdf_of_two_pages(reportlab: Any, warehouse: Path, tmp_path: Path) -> None:
    count = render(warehouse, tmp_path / "report.pdf")

    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert count == 2 and b"/Count 2" in content
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_the_pages_show_numbers_model_and_health(reportlab: Any, warehouse: Path, tmp_path: Path) -> None:
    metrics = churn.Metrics(0.777, 0.5, 0.16, 4590, 0.3, [(0.8, 0.79), (0.1, 0.11)])
    with writing(warehouse) as db:
        candidate = tmp_path / "candidate.pkl"
        candidate.touch()
        trained = churn.Trained(str(candidate), "boosting", 4000, 0.77)
        churn._record(db, tmp_path, trained, metrics, True, "kept", ("2026-01-04T00:00:00", "r", "release"))
    health.record(warehouse, [health.Reading("disk", 91.0, "%", 90)], "r", NOW)

    render(warehouse, tmp_path / "report.pdf")

    text = drawn_text(tmp_path / "report.pdf")
    for expected in ("$13,063", "69,659", "23,570", "167,881", "0.777", "boosting", "release", "disk", "failed"):
        assert expected in text


def drawn_text(pdf: Path) -> str:
    """The strings of an uncompressed PDF: its content streams are ASCII85, so they are decoded first."""
    streams = re.findall(rb"stream\r?\n(.*?)~>endstream", pdf.read_bytes(), re.DOTALL)
    plain = [base64.a85decode(stream.strip()) for stream in streams] or [pdf.read_bytes()]
    return " ".join(part.decode("latin-1") for part in plain)


def test_without_a_mail_server_the_e_mail_lands_in_the_outbox(tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-1.4 small")

    message = mail.compose(pdf, sender="a@x.org", recipients=["b@x.org", "c@x.org"], subject="Week – 26", text="Hello")
    outcome = mail.deliver(message, "", tmp_path, "weekly")

    saved = email.message_from_bytes((tmp_path / "weekly.eml").read_bytes(), policy=policy.default)
    attachment = next(saved.iter_attachments())
    assert outcome == f"written to the outbox: {tmp_path / 'weekly.eml'}"
    assert (saved["To"], saved["Subject"]) == ("b@x.org, c@x.org", "Week – 26")
    assert attachment.get_filename() == "report.pdf"
    assert attachment.get_content() == b"%PDF-1.4 small"


def test_a_mail_server_gets_the_e_mail(tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-1.4 small")
    message = mail.compose(pdf, sender="a@x.org", recipients=["b@x.org"], subject="Week 26", text="Hello")

    with smtp_server() as server:
        outcome = mail.deliver(message, server["url"], tmp_path, "weekly")

    assert outcome == "sent through 127.0.0.1"
    assert any(command.upper().startswith("RCPT TO:<B@X.ORG>") for command in server["commands"])
    assert email.message_from_bytes(server["message"], policy=policy.default)["Subject"] == "Week 26"
    assert not (tmp_path / "weekly.eml").exists()


def test_a_refusing_mail_server_fails_with_its_words(tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-1.4 small")
    message = mail.compose(pdf, sender="a@x.org", recipients=["b@x.org"], subject="Week 26", text="Hello")

    with smtp_server(refuse="no such box") as server, pytest.raises(OSError, match="no such box"):
        mail.deliver(message, server["url"], tmp_path, "weekly")


def test_addresses_and_urls_that_are_none_are_refused(tmp_path: Path) -> None:
    assert mail.addresses(" a@x.org, b@x.org ,") == ["a@x.org", "b@x.org"]
    for wrong in ("", "nobody", "a@x.org, @x.org", "a@x.org\nBcc: b@x.org"):
        with pytest.raises(ValueError, match="recipients: "):
            mail.addresses(wrong)
    with pytest.raises(ValueError, match="EXAMPLES_SMTP_URL must look like"):
        mail.deliver(object(), "http://mail", tmp_path, "weekly")


def test_changes_and_money_read_like_a_person_would_write_them() -> None:
    assert [pages.money(cents) for cents in (0, 3429, 1_306_332)] == ["$0.00", "$34.29", "$13,063"]
    assert pages.change(110, 100) == pytest.approx(10)
    assert pages.change(1, 0) is None
    assert pages.week_text(date(1997, 12, 29)) == "29 December 1997 – 4 January 1998"
