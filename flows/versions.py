"""Versions of flows' code: a flow's row follows the newest one that a worker has which is there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q
from perfect_client.schema import masking, validation
from perfect_client.wire.messages import FlowSpec, dumps, from_dict, to_dict

from flows import sealing
from flows.effort import Bounded
from flows.models import Change, Flow, Version
from runs.models import Offering, Run, Worker

PRESENT = timedelta(seconds=60)  # who was heard this recently may be back in a moment, as after a restart
VERSIONS_KEPT = 10  # of a flow, beside those that workers have
CHANGES_KEPT = 50
NEVER = datetime.min.replace(tzinfo=UTC)


def fingerprint_of(spec: FlowSpec) -> str:
    """What tells its versions apart; made here for who sends none."""
    return (
        spec.fingerprint[:64] or hashlib.sha256(dumps(_code_of(spec)).encode("utf-8", "backslashreplace")).hexdigest()
    )


def _code_of(spec: FlowSpec) -> dict[str, Any]:
    """What the code says, without what one worker says of it."""
    said = {"start", "start_reason", "problem", "notes", "source_time", "fingerprint"}
    return {name: value for name, value in to_dict(spec).items() if name not in said}


def without_secrets(spec: FlowSpec) -> FlowSpec:
    """Its worker leaves secrets out of defaults and configurations; those of earlier versions did not."""
    parameters = masking.mask_schema(spec.parameters)
    configurations = {name: masking.mask(values, parameters) for name, values in spec.configurations.items()}
    return replace(spec, parameters=parameters, configurations=configurations)


def known_of(flows: Iterable[Flow], specs: Iterable[FlowSpec]) -> dict[tuple[int, str], Version]:
    """The versions of these flows that were announced before, by flow and fingerprint."""
    rows = Version.objects.filter(
        flow__in=[flow.pk for flow in flows], fingerprint__in=[fingerprint_of(spec) for spec in specs]
    )
    return {(row.flow_id, row.fingerprint): row for row in rows.defer("spec")}


def add(flow: Flow, spec: FlowSpec, now: datetime) -> Version:
    """A version that the server has not seen before. Its source is at most as new as this moment: of the clocks of
    several machines none can outdo the others by being ahead."""
    at = None if spec.source_time is None else min(now, datetime.fromtimestamp(max(0.0, spec.source_time), UTC))
    told = _code_of(without_secrets(spec))
    version, _ = Version.objects.get_or_create(  # another server may add it at the same moment
        flow=flow, fingerprint=fingerprint_of(spec), defaults={"source_at": at, "spec": told, "seen_at": now}
    )
    unused = Version.objects.filter(flow=flow, offerings=None).exclude(pk=version.pk).order_by("-pk")
    Version.objects.filter(pk__in=list(unused.values_list("pk", flat=True)[VERSIONS_KEPT:])).delete()
    return version


def is_older(version: Version, other: Version) -> bool:
    """By the time of the source, as it was first told; else by which the server saw earlier."""
    return _age(version) < _age(other)


def _age(version: Version) -> tuple[datetime, int]:
    return version.source_at or NEVER, version.pk


def spec_of(version: Version) -> FlowSpec:
    return replace(from_dict(FlowSpec, version.spec), fingerprint=version.fingerprint)


def present(now: datetime) -> Q:
    """The offerings of workers that are there."""
    return Q(worker__connected=True) | Q(worker__last_seen_at__gt=now - PRESENT)


def newest(flows: Collection[int], now: datetime, without: Worker | None = None) -> dict[int, Offering]:
    """For each of these flows the offering with the newest version, among workers that are there."""
    rows = Offering.objects.filter(present(now), flow__in=flows, version__isnull=False)
    if without is not None:
        rows = rows.exclude(worker=without)
    best: dict[int, Offering] = {}
    for row in rows.select_related("version", "worker__token").defer("version__spec"):
        known = best.get(row.flow_id)
        if known is None or is_older(_version(known), _version(row)):
            best[row.flow_id] = row
    return best


def _version(row: Offering) -> Version:
    assert row.version is not None
    return row.version


def left_behind(now: datetime) -> list[tuple[Flow, Offering]]:
    """The flows whose version has left with its workers, each with the newest one that is there."""
    there = Offering.objects.filter(present(now), flow=OuterRef("pk"), version__isnull=False)
    ours = Exists(there.filter(version__fingerprint=OuterRef("fingerprint")))
    flows = {flow.pk: flow for flow in Flow.objects.filter(Exists(there)).exclude(ours)}
    best = newest(list(flows), now) if flows else {}
    return [(flows[pk], row) for pk, row in best.items() if not sealing.unreadable(_version(row).spec)]


def note_change(flow: Flow, spec: FlowSpec, who: str, now: datetime, why: str = "") -> None:
    """Keep what the version changes of the flow's parameters and configurations, if anything."""
    told = [*_told("parameters", flow.properties, spec.parameters.get("properties") or {})]
    told += _told("configurations", flow.configurations, spec.configurations)
    if told:
        Change.objects.create(flow=flow, time=now, who=who[:400], what="; ".join(told) + (f" ({why})" if why else ""))
        old = Change.objects.filter(flow=flow).order_by("-pk").values_list("pk", flat=True)[CHANGES_KEPT:]
        Change.objects.filter(pk__in=list(old)).delete()


def _told(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    groups = (
        ("added", [name for name in after if name not in before]),
        ("removed", [name for name in before if name not in after]),
        ("changed", [name for name in after if name in before and after[name] != before[name]]),
    )
    return [f"{kind} {word}: {', '.join(names)[:400]}" for word, names in groups if names]


def who_announced(worker: Worker | None) -> str:
    if worker is None:
        return "server"
    return f"worker {worker.name}" + (f", token {worker.token.name}" if worker.token else "")


def takes(spec: Mapping[str, Any], run: Run) -> bool:
    """Whether the run's parameters and configuration, which another version was asked for, suit this one."""
    configurations = spec.get("configurations") or {}
    if sealing.unreadable(spec) or (run.configuration and run.configuration not in configurations):
        return False
    elsewhere = configurations.get(run.configuration) or {}
    try:
        validation.fit_all(spec.get("parameters") or {}, run.parameters, elsewhere, effort=Bounded())
    except validation.Unfit:
        return False
    return True


def suits(version: Version | None, run: Run) -> bool:
    """Whether a worker with this version can be given the run; of an unknown one nothing else is assumed."""
    return version is None or version.fingerprint == run.flow.fingerprint or takes(version.spec, run)
