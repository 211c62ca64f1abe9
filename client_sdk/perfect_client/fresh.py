"""An interpreter of its own for one run: it imports the flow's file itself, waits for its order, and executes it."""

from __future__ import annotations

import json
import os
import select
import socket
from typing import Any, Callable, Dict, Mapping, NoReturn, Sequence

from perfect_client import child, discovery, importing, procs, signature
from perfect_client.channel import Channel
from perfect_client.loader import Loader
from perfect_client.own_modules import OwnModules
from perfect_client.sources import Unit
from perfect_client.survey import kept_sources
from perfect_client.zygote import WARM_UPS, settle_streams


def _import(code: Mapping[str, Any], is_waiting: Callable[[], bool]) -> child.Find:
    """Import the unit; what finds its flows. While nobody waits for a run, do ahead what its start would have to do."""
    flows: Dict[str, Any] = {}
    problem = ""
    importing.current = importing.Import()
    try:
        modules = OwnModules(code["folders"], kept_sources(code["sources"]))
        modules.install()
        imported = Loader(modules).load_unit(Unit(*code["unit"]))
        flows, problem = {flow.name: flow for flow in reversed(imported.flows)}, imported.problem
    except (OSError, ValueError, EOFError) as wrong:
        problem = "the last good sources cannot be read: %s" % wrong
    finally:
        importing.current = None
    for flow in flows.values():
        if not is_waiting():
            discovery.plan(flow)
            signature.parameters(flow.fn)

    def find(name: str) -> Any:
        if name not in flows:
            raise child.NotImported(problem or "%s has no flow '%s' any more" % (code["unit"][1], name))
        return flows[name]

    return find


def main(arguments: Sequence[str]) -> NoReturn:
    """``control-fd lifeline-fd bell-fd worker-uuid runs-folder code``; started by the supervisor only. ``code`` is
    JSON: the ``unit``, the worker's ``folders`` and the file with the ``sources`` that count, if not those on disk."""
    control, lifeline, bell = (int(number) for number in arguments[:3])
    for fd in (control, lifeline, bell):
        os.set_inheritable(fd, False)
    procs.die_with(lifeline)
    settle_streams()
    channel = Channel(socket.socket(fileno=control))

    def is_waiting() -> bool:
        return bool(select.select([channel.fileno()], [], [], 0)[0])

    find = _import(json.loads(arguments[5]), is_waiting)
    procs.keep_alive_without(lifeline)
    for _ in range(WARM_UPS):
        if not is_waiting():
            child.warm_up()
    child.run(channel, child.Place(arguments[3], arguments[4], bell), find, alone=True)
