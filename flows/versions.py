"""Versions of flows' code: which of two is newer, what one changes of the parameters, and what it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from perfect_client.schema import masking, validation
from perfect_client.wire.messages import FlowSpec, dumps, from_dict, to_dict

from flows import sealing
from flows.effort import Bounded
from flows.models import Change, Flow, Version

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


def takes(spec: Mapping[str, Any], parameters: Mapping[str, Any], configuration: str) -> bool:
    """Whether parameters and a configuration, which were checked against another version, suit this one."""
    configurations = spec.get("configurations") or {}
    if sealing.unreadable(spec) or (configuration and configuration not in configurations):
        return False
    elsewhere = configurations.get(configuration) or {}
    try:
        validation.fit_all(spec.get("parameters") or {}, parameters, elsewhere, effort=Bounded())
    except validation.Unfit:
        return False
    return True
