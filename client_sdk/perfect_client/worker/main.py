"""How a process becomes a worker: options, environment, folder, and ``serve`` for flow files that start themselves."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, List, Mapping, NoReturn, Optional, Sequence, Tuple

from perfect_client.core import importing
from perfect_client.journal.journal import Folder, Occupied
from perfect_client.storage import results
from perfect_client.wire import address
from perfect_client.wire.connection import Link
from perfect_client.worker.catalogue import AUTO
from perfect_client.worker.launcher import IMPORT_AGE_S
from perfect_client.worker.supervisor import STOP_GRACE_S, Setup, Supervisor
from perfect_client.worker.zygotes import PACKAGE_HOME

MAX_SLOTS = 1000
MAX_IMPORT_AGE_S = 86_400
KNOWN = (
    "PERFECT_HOME",
    "PERFECT_URL",
    "PERFECT_TOKEN",
    "PERFECT_DATABASE_URL",
    "PERFECT_SECRET_KEY",
    "PERFECT_ALLOWED_HOSTS",
    "PERFECT_DEBUG",
    "PERFECT_RETENTION_DAYS",
    "PERFECT_LOG_LEVEL",
    "PERFECT_RUN",
    "PERFECT_RESULTS_MB",
    "PERFECT_RESULTS_DAYS",
    "PERFECT_CONSOLE",
    "PERFECT_TRACEBACK",
    "PERFECT_IMPORT_AGE",
)
REFUSED = 2  # exit code: what was asked for cannot be done

_PROGRAM = (
    "import sys; sys.path[:1] = []; sys.path.append(%r); from perfect_client.cli import main; sys.exit(main())"
    % PACKAGE_HOME
)


class Unusable(ValueError):
    """An option or a setting that cannot work; the text is a sentence that says what would be right."""


def say(sentence: str) -> None:
    """To the operator. A closed terminal must not end the worker."""
    try:
        print(sentence, flush=True)
    except (OSError, ValueError):
        pass


def warnings_about(environ: Mapping[str, str], url: Optional[str] = None) -> List[str]:
    """Sentences about settings that are probably not meant as they are. ``url`` is the option's."""
    found = []
    for name in sorted(environ):
        if name.startswith("PERFECT_") and not name.startswith("PERFECT__") and name not in KNOWN:
            import difflib  # heavy, for a rare message

            near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.0)[0]
            found.append("%s is not a setting of Perfect; did you mean %s?" % (name, near))
    server = address.find_server(url, environ)
    if server.note:
        found.append(server.note)
    if "PREFECT_API_URL" in environ and "PERFECT_URL" not in environ:
        found.append("PREFECT_API_URL is set, PERFECT_URL is not: this worker uses %s" % server.url)
    return found


def default_slots() -> int:
    return max(2, 2 * (os.cpu_count() or 1))


def default_name() -> str:
    return re.sub(r"[^\w.-]", "-", platform.node()) or "worker"


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"(?!\.)[\w.-]{1,100}", name):
        raise Unusable("--name takes 1 to 100 letters, digits, '.', '_' or '-', not %r" % name)
    return name


def _checked_slots(slots: int) -> int:
    if not 1 <= slots <= MAX_SLOTS:
        raise Unusable("--slots takes a number from 1 to %d, not %r" % (MAX_SLOTS, slots))
    return slots


def _import_age(environ: Mapping[str, str]) -> float:
    """How old an import may be, in seconds. Raises ``Unusable``."""
    text = environ.get("PERFECT_IMPORT_AGE", "")
    try:
        age = float(text) if text else IMPORT_AGE_S
    except ValueError:
        age = 0.0
    if not 1 <= age <= MAX_IMPORT_AGE_S:
        raise Unusable("PERFECT_IMPORT_AGE takes seconds, from 1 to %d (a day), not %r" % (MAX_IMPORT_AGE_S, text))
    return age


def _checked_target(target: str) -> str:
    if os.path.exists(target):
        return os.path.abspath(target)
    if target.endswith(".py") or os.sep in target:
        raise Unusable("there is no file or folder %s" % target)
    return target


def configure(
    targets: Sequence[str],
    *,
    environ: Mapping[str, str],
    name: Optional[str] = None,
    slots: Optional[int] = None,
    pools: Sequence[str] = (),
    url: Optional[str] = None,
    token: Optional[str] = None,
    script: str = "",
    start: str = AUTO,
    reload: bool = True,
    drain_s: Optional[float] = None,
    grace_s: float = STOP_GRACE_S,
) -> Setup:
    """Options and environment as a ``Setup``; makes the worker's folder. Raises ``Unusable``."""
    if not hasattr(os, "fork"):
        raise Unusable("a worker needs fork(2): Linux or macOS (on Windows use WSL)")
    if not targets and not script:
        raise Unusable("name at least one file, folder or module with flows")
    checked_name = _checked_name(default_name() if name is None else name)
    checked_slots = _checked_slots(default_slots() if slots is None else slots)
    checked_targets = [_checked_target(target) for target in targets]
    server = address.find_server(url, environ).url
    try:
        results.bounds(environ)
        checked_token = address.find_token(token, environ, server)
        Link(server, checked_token)
    except ValueError as wrong:
        raise Unusable(str(wrong)) from None
    path = address.home(environ) / "worker" / checked_name
    try:
        folder = Folder(path)
    except OSError as wrong:
        raise Unusable("the folder %s cannot be used: %s" % (path, wrong.strerror)) from None
    return Setup(
        url=server,
        token=checked_token,
        folder=folder,
        targets=checked_targets,
        name=checked_name,
        slots=checked_slots,
        pools=list(pools),
        look_up=None
        if url or environ.get("PERFECT_URL")
        else lambda: _look_up(token, environ, (server, checked_token)),
        script=script,
        start=start,
        reload=reload,
        import_age_s=_import_age(environ),
        drain_s=drain_s,
        grace_s=grace_s,
    )


def _look_up(token: Optional[str], environ: Mapping[str, str], before: Tuple[str, str]) -> Tuple[str, str]:
    """Where the server of this machine is by now; as ``before`` while it does not run."""
    url = address.running_server(environ)
    try:
        return before if url is None else (url, address.find_token(token, environ, url))
    except ValueError:
        return before


def work(setup: Setup) -> int:
    """Be a worker until told to stop; the exit code."""
    try:
        setup.folder.lock()
        os.environ["PERFECT_URL"] = setup.url  # for the addresses that ``runtime`` tells inside runs
        supervisor = Supervisor(setup, say)
        say(
            "Perfect worker '%s', %d slots, for %s\n  stop    %s"
            % (setup.name, setup.slots, setup.url, _how_to_stop(setup))
        )
        return supervisor.run()
    except Occupied as wrong:
        say("perfect: %s" % wrong)
        return REFUSED


def _how_to_stop(setup: Setup) -> str:
    if setup.drain_s:
        return "Ctrl+C; running flows get %g s to end, then %g s to stop" % (setup.drain_s, setup.grace_s)
    stop = "Ctrl+C; running flows are asked to stop and get %g s" % setup.grace_s
    return stop if setup.drain_s == 0 else stop + " (kill -TERM %d lets them end)" % os.getpid()


def serve(
    *targets: Any,
    name: Optional[str] = None,
    slots: Optional[int] = None,
    pools: Sequence[str] = (),
    url: Optional[str] = None,
    token: Optional[str] = None,
    reload: bool = True,
    drain: Optional[float] = None,
) -> None:
    """Turn this program into a worker for its flows, or for ``targets``: flows, methods that are flows, files, folders,
    modules. ``reload``: whether the files are watched.

    Does not return: the program is replaced, so that the worker itself never holds what the flows import. While a
    worker imports the file it does nothing, so it may also stand outside ``if __name__ == "__main__"``. The worker
    executes a program that hands over something that no module has by a name, up to this call.
    """
    if importing.current is not None:
        importing.current.serve(targets)
        return
    script = _main_file() if any(_is_made_by_the_program(target) for target in targets) else ""
    named = [target for target in targets or (_main_file(),) if not script or isinstance(target, (str, os.PathLike))]
    arguments = ["worker", *dict.fromkeys(map(_target_of, named))]
    if script:
        arguments += ["--script", script]
    options = {"--name": name or _name_of(targets), "--slots": slots, "--url": url, "--drain": drain}
    for option, value in options.items():
        if value is not None:
            arguments += [option, str(value)]
    for pool in pools:
        arguments += ["--pool", pool]
    if not reload:
        arguments.append("--no-reload")
    if token is not None:
        os.environ["PERFECT_TOKEN"] = token  # not on the command line, where every user of the machine reads it
    _become(arguments)


def _is_made_by_the_program(target: Any) -> bool:
    """Whether importing its module does not give this flow: a method of an object, or a flow that code has made."""
    if isinstance(target, (str, os.PathLike)):
        return False
    module = sys.modules.get(getattr(target, "__module__", ""))
    return all(value is not target for value in list(vars(module).values())) if module is not None else True


def _become(arguments: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-c", _PROGRAM, *arguments])


def _main_file() -> str:
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not file or not os.path.exists(file):
        raise Unusable("serve() has no file to serve: write the flows to a file, or name one: serve('flows.py')")
    return os.path.abspath(str(file))


def _target_of(target: Any) -> str:
    if isinstance(target, (str, os.PathLike)):
        return str(os.fspath(target))
    code = getattr(getattr(target, "fn", None), "__code__", None)
    if code is None:
        raise Unusable("serve() takes flows, files, folders and modules, not %r" % (target,))
    return os.path.abspath(str(code.co_filename))


def _name_of(targets: Sequence[Any]) -> str:
    """Host and file: several flow files served on one machine are several workers."""
    stem = Path(_target_of(targets[0]) if targets else _main_file()).stem
    return re.sub(r"[^\w.-]", "-", "%s-%s" % (default_name(), stem))[:100]
