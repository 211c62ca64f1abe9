"""The command line of a worker; ``manage.py runworker`` takes the same options from here."""

from __future__ import annotations

import argparse
import os
from typing import Optional, Sequence

from perfect_client.engine import options
from perfect_client.wire.address import DEFAULT_URL
from perfect_client.worker import main as worker
from perfect_client.worker.supervisor import STOP_GRACE_S


def _slots(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("takes a whole number, not %r" % text) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("takes seconds, at most a day, not %r" % text)
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a worker, defined once."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a file, a folder or a dotted module with flows")
    parser.add_argument("--script", default="", help=argparse.SUPPRESS)  # `serve`: executed up to its call
    parser.add_argument("--name", help="the worker's name on its machine and on the pages (default: the host's name)")
    parser.add_argument("--slots", type=_slots, metavar="N", help="runs at the same time (default: 2 per processor)")
    parser.add_argument(
        "--drain",
        type=_seconds,
        metavar="SECONDS",
        help="when the worker is told to stop, let runs go on for so long before they are asked to stop (default: 0 "
        "after Ctrl+C, no limit after SIGTERM); a second signal stops them, a third one kills them",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=STOP_GRACE_S,
        metavar="SECONDS",
        help="what a run gets to tidy up when it misses its own deadline or the worker stops (default: %(default)g)",
    )
    parser.add_argument("--pool", action="append", default=[], metavar="NAME", help="serve this pool; can be repeated")
    parser.add_argument(
        "--url", help="the server (default: PERFECT_URL, else the one of PERFECT_HOME, else %s)" % DEFAULT_URL
    )
    parser.add_argument("--token", help="default: PERFECT_TOKEN, else what the server on this machine wrote for it")
    parser.add_argument(
        "--start",
        choices=options.STARTS,
        default="auto",
        help="how runs start: by a fork of a process that has imported the flows, fresh in an interpreter of their "
        "own, or as fits what the imports left (default: %(default)s)",
    )
    parser.add_argument(
        "--no-reload", dest="reload", action="store_false", help="do not import files again when they change"
    )
    parser.add_argument("--reload", action="store_true", help=argparse.SUPPRESS)  # what is done anyway


def run_worker(given: argparse.Namespace) -> int:
    """Be the worker that the parsed options describe; the exit code (2: refused)."""
    for sentence in worker.warnings_about(os.environ, given.url):
        worker.say("perfect: warning: %s" % sentence)
    try:
        setup = worker.configure(
            given.targets,
            environ=os.environ,
            name=given.name,
            slots=given.slots,
            pools=given.pool,
            url=given.url,
            token=given.token,
            script=given.script,
            start=given.start,
            reload=given.reload,
            drain_s=given.drain,
            grace_s=given.grace,
        )
    except worker.Unusable as wrong:
        worker.say("perfect: %s" % wrong)
        return worker.REFUSED
    return worker.work(setup)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """``perfect-client worker …``; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perfect_client", description="Perfect's worker.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    described = commands.add_parser("worker", help="run flows for a server", description="Run flows for a server.")
    add_arguments(described)
    described.set_defaults(run=run_worker)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))
