"""Sending the report: through an SMTP server if one is configured, else into the outbox folder as an .eml file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from example_home import part_of

TIMEOUT_SECONDS = 20.0
SCHEMES = ("smtp", "smtps")


def smtp_url() -> str:
    """`EXAMPLES_SMTP_URL`: smtp://user:password@host:port, smtps:// for TLS from the start; empty for the outbox."""
    return os.environ.get("EXAMPLES_SMTP_URL", "").strip()


def addresses(recipients: str) -> list[str]:
    """The addresses in a comma-separated text. Raises ValueError for one that is none, or when there is none at all."""
    found = [part.strip() for part in recipients.split(",") if part.strip()]
    wrong = [text for text in found if text.count("@") != 1 or not all(text.split("@")) or len(text.split()) != 1]
    if wrong or not found:
        problem = f"{wrong[0]!r} is no address" if wrong else "nobody is named"
        raise ValueError(f"recipients: {problem}; write them like ana@example.com, bo@example.com.")
    return found


def compose(pdf: Path, *, sender: str, recipients: list[str], subject: str, text: str) -> Any:
    """The e-mail (an `email.message.EmailMessage`) with the PDF attached."""
    # Loaded here, as smtplib below: the e-mail packages add 7 MB that an idle worker should not carry.
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, ", ".join(recipients), subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(text)
    message.add_attachment(pdf.read_bytes(), maintype="application", subtype="pdf", filename=pdf.name)
    return message


def deliver(message: Any, url: str, outbox: Path, name: str) -> str:
    """Sends the message, or writes `name`.eml to the outbox when `url` is empty; returns where it went, in words.

    Raises ValueError for a URL that is none and OSError (with the server's words) when it cannot be sent.
    """
    if url:
        return _send(message, url)
    path = outbox / f"{name}.eml"
    part = part_of(path)
    part.write_bytes(bytes(message))
    os.replace(part, path)
    return f"written to the outbox: {path}"


def _send(message: Any, url: str) -> str:
    from smtplib import SMTP, SMTP_SSL, SMTPException
    from ssl import create_default_context

    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError("EXAMPLES_SMTP_URL must look like smtp://user:password@host:port (or smtps://).")
    tls = create_default_context()  # checks the certificate: a password must not go to a stranger
    try:
        client: SMTP
        if parts.scheme == "smtps":
            client = SMTP_SSL(parts.hostname, parts.port or 465, timeout=TIMEOUT_SECONDS, context=tls)
        else:
            client = SMTP(parts.hostname, parts.port or 25, timeout=TIMEOUT_SECONDS)
        with client as smtp:
            smtp.ehlo()
            if parts.scheme == "smtp" and smtp.has_extn("starttls"):
                smtp.starttls(context=tls)
            if parts.username:
                smtp.login(unquote(parts.username), unquote(parts.password or ""))
            refused = smtp.send_message(message)
    except SMTPException as error:
        raise OSError(f"{parts.hostname} did not take the e-mail: {error}") from error
    return f"sent through {parts.hostname}" + (f", which refused {', '.join(sorted(refused))}" if refused else "")
