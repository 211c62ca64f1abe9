"""Flows that let a secret out in every way they know. ``seed`` is its text in hexadecimal, which nobody masks."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from perfect_client import Secret, flow, progress, runtime, tags, task
from perfect_client.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from perfect_client.states import Completed
from perfect_client.task_runners import ProcessPoolTaskRunner

IN_CODE = 'd&fault <"it\'s"> s3cr\u00e9t + 1/2'
AT_IMPORT = "imp\u00f6rt/+s3cr&t = 'made' \\ at import"
CONFIGURED = 'conf\u00fcgured "s3cret" & co/+'
_AT_IMPORT, _DEFAULT, _NONE = Secret(AT_IMPORT), Secret(IN_CODE), Secret("")

FORMS = {
    "plain": str,
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps({"a": text})),
    "bytes": lambda text: repr(text.encode()),
    "quote": urllib.parse.quote,
    "quote all": lambda text: urllib.parse.quote(text, safe=""),
    "quote_plus": urllib.parse.quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "basic 0": lambda text: _basic("ana", text),
    "basic 1": lambda text: _basic("anna", text),
    "basic 2": lambda text: _basic("annie", text),
    "xml": lambda text: text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
}


def _basic(user: str, password: str) -> str:
    return base64.b64encode(("%s:%s" % (user, password)).encode()).decode()


# ------------------------------------------------------------------------------------------------------ ways out


def _echo(text: str, to: str = "") -> None:
    subprocess.run(["sh", "-c", 'printf "way %s way\\n" "$LEAK"' + to], env={**os.environ, "LEAK": text}, check=True)


def _child(text: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_say, args=(text,))
    process.start()
    process.join()


def _say(text: str) -> None:
    print("way", text, "way", flush=True)


def _halves(text: str) -> None:
    raw = ("way %s way\n" % text).encode()
    for at in range(0, len(raw), 5):
        os.write(1, raw[at : at + 5])
        time.sleep(0.002)


def _raise(text: str) -> None:
    raise ValueError("way " + text)


def _raise_long(text: str) -> None:
    raise ValueError("way " + "x" * 1990 + text * 500)


@task
def _fails(text: str) -> None:
    raise ValueError("way " + text)


@task
def _returns(text: str) -> str:
    return "way " + text


@task(task_run_name="way {text}")
def _named(text: str) -> object:
    return Completed(message="way " + text, name="way " + text)


@task
def _reports(text: str) -> None:
    progress(0.5, "way " + text)


@flow
def _below(text: str) -> str:
    with tags("way " + text):
        return str(_returns(text))


def _crash(text: str) -> None:
    os.write(2, ("way\n%s" % text).encode())
    os.kill(os.getpid(), 9)


def _crash_after_much(text: str) -> None:
    os.write(1, ("way\n" + text * (8000 // len(text)) + "\n").encode())
    os.write(2, text[: len(text) // 2].encode())
    os.write(1, b"between\n")
    os.write(2, text[len(text) // 2 :].encode())
    os.kill(os.getpid(), 9)


def _in_a_thread(text: str) -> None:
    with ThreadPoolExecutor() as pool:
        pool.submit(_say, text).result()


WAYS = {
    "print": _say,
    "in pieces": lambda text: [sys.stdout.write(piece) for piece in ("way ", *text, " way\n")],
    "stderr": lambda text: sys.stderr.write("way %s way\n" % text),
    "logging": lambda text: logging.getLogger("x").warning("way %s", text),
    "thread": _in_a_thread,
    "descriptor 1": lambda text: os.write(1, ("way %s way\n" % text).encode()),
    "descriptor 2": lambda text: os.write(2, ("way %s way\n" % text).encode()),
    "halves": _halves,
    "subprocess": _echo,
    "subprocess stderr": lambda text: _echo(text, " >&2"),
    "fork": _child,
    "long line": lambda text: print("way" + "y" * (16_384 - 32 - len(text) // 2) + text * 100),
    "long line past Python": lambda text: os.write(1, b"way" + b"y" * 16_373 + (text * 100).encode() + b"\n"),
    "error": _raise,
    "long error": _raise_long,
    "task": _returns,
    "task error": _fails,
    "long result": lambda text: _returns(text * 100),
    "names": _named,
    "progress": _reports,
    "sub-flow": _below,
    "crash": _crash,
    "crash after much": _crash_after_much,
    "markdown": lambda text: create_markdown_artifact("way " + text),
    "table": lambda text: create_table_artifact([{"way": text * 200, text: 1}]),
    "link": lambda text: create_link_artifact("https://u:%s@h/" % text, "way"),
    "exit": lambda text: sys.exit("way " + text),
}


# ------------------------------------------------------------------------------------------------ where it comes from


def _text(seed: str) -> str:
    return bytes.fromhex(seed).decode("utf-8")


def _nested(seed: str) -> str:
    return str(Secret({"a": [{"b": _text(seed)}]}).get()["a"][0]["b"])


SOURCES = {
    "default": lambda seed, key, given: key.get(),
    "given": lambda seed, key, given: given.get(),
    "import": lambda seed, key, given: _AT_IMPORT.get(),
    "configuration": lambda seed, key, given: runtime.flow_run.configuration["db_password"],
    "made": lambda seed, key, given: Secret(_text(seed)).get(),
    "bytes": lambda seed, key, given: Secret(bytes.fromhex(seed)).get().decode(),
    "nested": lambda seed, key, given: _nested(seed),
}


@flow(
    configurations={"only": {"db_password": CONFIGURED}},
    flow_run_name=lambda: "way " + _AT_IMPORT.get(),
    description="not " + AT_IMPORT,
)
def leaks(
    source: str, way: str, form: str, seed: str = "", key: Secret[str] = _DEFAULT, given: Secret[str] = _NONE
) -> object:
    value = SOURCES[source](seed, key, given)
    assert isinstance(value, str)
    return WAYS[way](FORMS[form](value))


@task
def _makes_and_tells(seed: str, form: str) -> str:
    text = FORMS[form](Secret(_text(seed)).get())
    os.write(1, ("way %s way\n" % text).encode())
    print("way", text)
    threading.Thread(target=print, args=("way", text)).run()
    return "way " + text


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def leaks_from_a_pool(seed: str, form: str) -> None:
    """The parent learns the secret from the process of the task."""
    text = _makes_and_tells.submit(seed, form).result()
    print("again", text)
    raise ValueError(text)


@flow
def leaks_many(count: int) -> None:
    """Makes a secret and prints it past Python at once, again and again."""
    for number in range(count):
        os.write(1 + number % 2, ("way %s\n" % Secret("t0ken-of-%d-the-run" % number).get()).encode())


@task(timeout_seconds=0.3)
def _hangs(text: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1000)


@flow
def leaks_by_its_end() -> None:
    """The supervisor says which task ran too long."""
    _hangs.with_options(name="hangs with " + AT_IMPORT)("")
