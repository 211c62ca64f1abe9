"""A run's process that imports the flow's file itself: ahead of its order, or when it has got it."""

from __future__ import annotations

import os
import select
from typing import Any, Dict, Mapping, NamedTuple, NoReturn, Optional

from perfect_client.analysis import planner
from perfect_client.core import importing
from perfect_client.execution import child
from perfect_client.fingerprints import fingerprints
from perfect_client.loading.importer import OwnModules
from perfect_client.loading.loader import Loader
from perfect_client.loading.sources import Unit
from perfect_client.loading.survey import kept_sources
from perfect_client.schema import signature
from perfect_client.system import procs
from perfect_client.system.channel import Channel


class Order(NamedTuple):
    """What to import (``code``: the ``unit``, the worker's ``folders``, the file with the ``sources`` if those on disk
    do not count), where the run's order comes in, the pipe that ends with the supervisor, and where to print to."""

    code: Mapping[str, Any]
    channel: Channel
    lifeline: int
    output: int


class _Unit:
    """The flows of one unit, imported when they are first asked for."""

    def __init__(self, code: Mapping[str, Any]) -> None:
        self._code = code
        self._problem: Optional[str] = None
        self.flows: Dict[str, Any] = {}

    def load(self) -> None:
        """Import it, if that was not done."""
        if self._problem is not None:
            return
        importing.current = importing.Import()
        try:
            modules = OwnModules(self._code["folders"], kept_sources(self._code["sources"]))
            modules.install()
            imported = Loader(modules).load_unit(Unit(*self._code["unit"]))
            self.flows, self._problem = {flow.name: flow for flow in reversed(imported.flows)}, imported.problem
        except (OSError, ValueError, EOFError) as wrong:
            self._problem = "the last good sources cannot be read: %s" % wrong
        finally:
            importing.current = None

    def find(self, name: str) -> Any:
        """The flow of that name. Raises ``NotImported``."""
        self.load()
        if name not in self.flows:
            raise child.NotImported(self._problem or "%s has no flow '%s' any more" % (self._code["unit"][1], name))
        return self.flows[name]


def run(order: Order, place: child.Place) -> NoReturn:
    """The whole life of the process."""
    os.setsid()
    procs.die_with(order.lifeline)
    for fd in (1, 2):
        os.dup2(order.output, fd)
    os.close(order.output)
    unit = _Unit(order.code)
    _get_ready(unit, order.channel)
    procs.keep_alive_without(order.lifeline)
    child.run(order.channel, place, unit.find, alone=True)


def _get_ready(unit: _Unit, channel: Channel) -> None:
    """Do ahead what the start of a run would have to do, as long as nobody waits for it."""

    def is_waited_for() -> bool:
        return bool(select.select([channel.fileno()], [], [], 0)[0])

    if not is_waited_for():
        unit.load()
    for flow in unit.flows.values():
        if not is_waited_for():
            planner.plan(flow)
            signature.parameters(flow.fn)
            fingerprints.read_ahead([flow])
