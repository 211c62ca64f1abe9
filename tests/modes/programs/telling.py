"""Programs about what is kept and shown: lines, progress, secrets, results, caches."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from typing import Any, Dict, List

from perfect_client import Secret, flow, get_run_logger, progress, task
from perfect_client.cache_policies import INPUTS, NO_CACHE
from saying import halt, says


@task
def talks() -> None:
    print("in", "the", "task", sep="-")
    get_run_logger().info("logged %d", 1)


@says(
    "plain",
    "[talks] in-the-task",
    "[talks] logged 1",
    "WARNING to stderr",
    "ERROR logged error",
    "CRITICAL logged by a library",
    "first",
    "second",
    "no line feed",
    "\u2400 \\ud800 \U0001f642 \x1b[31mred\x1b[0m",
    "ERROR with a traceback",
    "",
    "last",
    tasks=["talks"],
)
@flow
def lines() -> None:
    print("plain")
    talks()
    halt(1)
    print("to stderr", file=sys.stderr)
    get_run_logger().debug("not shown")
    get_run_logger().error("logged error")
    logging.getLogger("some.library").critical("logged by a library")
    print("first\nsecond")
    halt(2)
    print("no line ", end="")
    print("feed")
    print("\x00 \ud800 \U0001f642 \x1b[31mred\x1b[0m")
    try:
        raise ValueError("shown")
    except ValueError:
        get_run_logger().exception("with a traceback")
    print()
    sys.stdout.write("last")


@task
def half_way() -> None:
    progress(0.25, "a quarter")
    halt(1)
    raise ValueError("stuck")


@task
def all_the_way() -> int:
    return sum(progress.track([1, 2, 3], description="walking"))


@says(tasks=[("half_way", "FAILED"), "all_the_way"], result="6")
@flow
def progress_told() -> int:
    half_way(return_state=True)
    halt(2)
    return all_the_way()


@task
def shows(key: Any) -> None:
    print("the key is", key.get(), "in", key)
    raise ValueError("bad key " + key.get())


@says(
    "[shows] the key is *** in Secret('***')",
    "password ***",
    given={"key": "s3cret-key", "password": "hunter2-hunter2"},
    tasks=[("shows", "FAILED")],
    result="'again ***'",
    plain=False,
)
@flow
def secrets(key: Secret[str], password: str = "") -> str:
    halt(1)
    shows(key, return_state=True)
    print("password", password)
    halt(2)
    return "again " + key.get()


worked: List[Any] = []


@task(cache_policy=INPUTS)
def by_inputs(number: int) -> int:
    worked.append(number)
    return number * 10


@task(cache_key_fn=lambda context, parameters: "parity-%d" % (parameters["number"] % 2))
def by_key(number: int) -> int:
    return number


@task(cache_policy=INPUTS, cache_expiration=timedelta(milliseconds=1))
def expires(number: int) -> int:
    worked.append(number)
    return number


@task(cache_policy=INPUTS, refresh_cache=True)
def refreshed(number: int) -> int:
    return number


@task(cache_policy=NO_CACHE)
def never(number: int) -> int:
    return number


@says(
    "[1, 1, 2]",
    tasks=[
        "by_inputs",
        ("by_inputs", "CACHED"),
        "by_inputs",
        "by_key",
        ("by_key", "CACHED"),
        "by_key",
        "expires",
        "expires",
        "refreshed",
        "refreshed",
        "never",
        "never",
    ],
    result="[10, 10, 20, 1, 1, 4]",
)
@flow
def caching() -> Any:
    found = [by_inputs(1), by_inputs(1), by_inputs(2)]
    halt(1)
    found += [by_key(1), by_key(3), by_key(4)]
    halt(2)
    expires(1)
    time.sleep(0.002)
    expires(1)
    print([1, 1, 2] if len(worked) == 4 else worked)
    for number in (refreshed, never):
        number(1)
        number(1)
    return found


@task(persist_result=True, result_storage_key="modes-kept")
def kept() -> Dict[str, int]:
    return {"kept": 1}


@says(tasks=["kept", ("kept", "CACHED")], result="True")
@flow
def results_kept() -> bool:
    first = kept()
    halt(1)
    halt(2)
    return first == kept()


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@says(result=r"[<Unshowable>, nan, '\x00']")
@flow
def strange_result() -> Any:
    halt(1)
    halt(2)
    return [Unshowable(), float("nan"), "\x00"]
