"""What a worker can run now: its flows, how their runs start, and which code of a file is its last good one. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Set

from perfect_client.loading.sources import Unit
from perfect_client.wire import messages

AUTO, FORK, FRESH = "auto", "fork", "fresh"


class Entry(NamedTuple):
    """A flow as it is announced. ``sources`` is the file with its code where the code on disk is not to be used."""

    spec: messages.FlowSpec
    unit: Unit
    sources: str = ""

    @property
    def is_forked(self) -> bool:
        return self.spec.start == FORK


class _Piece(NamedTuple):
    """A unit as it was when it last imported well."""

    flows: List[messages.FlowSpec]
    left: str
    sources: str


class Catalogue:
    """``start`` is what the worker was told: ``auto``, ``fork`` or ``fresh``."""

    def __init__(self, start: str = AUTO) -> None:
        self._start = start
        self._pieces: Dict[Unit, _Piece] = {}
        self._faults: Dict[Unit, str] = {}  # unit → why its newest code is not used
        self._general: List[str] = []
        self.entries: Dict[str, Entry] = {}

    # ------------------------------------------------------------------------------------------------------- learning

    def take(self, report: Mapping[str, Any], skipped: Sequence[Unit] = ()) -> None:
        """All units were imported, but for those that were skipped, of which what is known stays."""
        before, self._general = self._pieces, list(report["problems"])
        self._pieces = {unit: before[unit] for unit in skipped if unit in before}
        self._faults = {unit: fault for unit, fault in self._faults.items() if unit in skipped}
        for told in report["units"]:
            unit = Unit(*told["unit"])
            if told["problem"]:
                self._faults[unit] = told["problem"]
                if unit in before:
                    self._pieces[unit] = before[unit]
            else:
                flows = [messages.from_dict(messages.FlowSpec, spec) for spec in told["flows"]]
                self._pieces[unit] = _Piece(flows, told["left"], report["sources"])
        self._settle()

    def learn_left(self, report: Mapping[str, Any]) -> None:
        """Some units were imported once more, without others: what they leave by themselves counts as well."""
        for told in report["units"]:
            unit = Unit(*told["unit"])
            piece = self._pieces.get(unit)
            if told["problem"]:
                self._faults[unit] = told["problem"]
            elif piece is not None:
                self._pieces[unit] = piece._replace(left=piece.left or told["left"])
        self._settle()

    def fail(self, unit: Unit, fault: str) -> None:
        """The unit's newest code cannot be imported, in a way that only its process knows of."""
        self._faults[unit] = fault
        self._settle()

    def fail_all(self, fault: str) -> None:
        """Nothing can be imported."""
        self._general = [fault]
        self._faults.update((unit, fault) for unit in self._pieces)
        self._settle()

    # -------------------------------------------------------------------------------------------------------- telling

    @property
    def has_faults(self) -> bool:
        """Whether some unit's newest code is not used."""
        return bool(self._faults)

    @property
    def problems(self) -> List[str]:
        return list(dict.fromkeys([*self._faults.values(), *self._general]))

    @property
    def flows(self) -> List[messages.FlowSpec]:
        return [entry.spec for entry in self.entries.values()]

    @property
    def forked(self) -> Set[Unit]:
        """The units with a flow whose runs are forks."""
        return {entry.unit for entry in self.entries.values() if entry.is_forked}

    @property
    def kept_apart(self) -> List[Unit]:
        """The units that must not be in a process whose forks are runs of others."""
        forked = self.forked
        return [
            unit for unit, piece in self._pieces.items() if unit not in forked and (piece.left or unit in self._faults)
        ]

    @property
    def sources_in_use(self) -> Set[str]:
        return {piece.sources for piece in self._pieces.values()}

    def _settle(self) -> None:
        self.entries = {}
        for unit in sorted(self._pieces, key=lambda unit: unit in self._faults):  # good code first, for one name
            piece, fault = self._pieces[unit], self._faults.get(unit, "")
            for spec in piece.flows:
                told = replace(spec, problem=fault and "%s. Its last good code is used." % fault.rstrip("."))
                entry = Entry(self._with_start(told, piece.left), unit, piece.sources if fault else "")
                self.entries.setdefault(spec.name, entry)

    def _with_start(self, spec: messages.FlowSpec, left: str) -> messages.FlowSpec:
        start, reason = FRESH, ""
        if spec.problem:
            reason = "starts fresh: its file does not import now, so each run imports the last good code"
        elif self._start == FRESH:
            reason = "starts fresh: the worker was started with --start fresh"
        elif self._start == AUTO and spec.start == FRESH:
            reason = 'starts fresh: the flow asks for it by start="fresh"'
        elif self._start == AUTO and spec.start != FORK and left:
            reason = "starts fresh: %s" % left
        else:
            start = FORK
            reason = "is forked on request, although %s" % left if left else ""
        return replace(spec, start=start, start_reason=reason)
