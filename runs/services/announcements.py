"""What workers announce: a flow's row follows the newest version of its code among the workers that are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q
from perfect_client.wire.messages import MAX_NAME, FlowSpec

from flows import addresses, sealing, versions
from flows.models import Flow, Schedule, Version
from flows.services import register
from runs import events
from runs.models import Offering, Worker

SCHEDULES_TOLD = 50
PRESENT = timedelta(seconds=60)  # who was heard this recently may be back in a moment, as after a restart


def announce(
    *, specs: Sequence[FlowSpec], now: datetime, worker: Worker | None = None
) -> tuple[list[tuple[Flow, FlowSpec]], list[str]]:
    """Make the rows say what the code says. Returns each flow with its spec, and a sentence for all that was refused.

    A flow that another worker serves too, from newer code, stays as that one says. A flow whose version is known costs
    no query of its own.
    """
    names = {spec.name.strip() for spec in specs}
    known = {flow.name: flow for flow in Flow.objects.filter(name__in=names)}
    seen = versions.known_of(known.values(), specs)
    other = [
        known[spec.name.strip()].pk
        for spec in specs
        if spec.name.strip() in known and known[spec.name.strip()].fingerprint != versions.fingerprint_of(spec)
    ]
    rivals = _newest(other, now, without=worker) if other else {}
    made: dict[int, tuple[Flow, FlowSpec]] = {}
    problems: list[str] = []
    for spec in specs:
        problem = _fault(spec)
        if problem:
            problems.append(problem)
            continue
        name = spec.name.strip()
        flow = known.get(name) or addresses.insert(Flow(name=name, created_at=now, updated_at=now))
        key = flow.pk, versions.fingerprint_of(spec)
        if key not in seen:
            seen[key] = versions.add(flow, spec, now)
        rival = rivals.get(flow.pk)
        if rival is None or rival.version is None or not versions.is_older(seen[key], rival.version):
            register(flow, spec, now, _who_announced(worker))
        known[name] = flow
        made[flow.pk] = (flow, spec)
    if made:
        topics = [events.flow_topic(flow.slug) for flow, _ in made.values()]
        events.publish(events.OVERVIEW, events.SCHEDULES, events.WORK, *topics)
    return list(made.values()), [*problems, *_dead_schedules(list(made))]


def follow_present(*, now: datetime) -> None:
    """A flow whose version has left with its workers becomes what the newest version says that is still there."""
    for flow, offering in _left_behind(now):
        assert offering.version is not None
        spec = versions.spec_of(offering.version)
        why = "no worker that is there has the version before"
        register(flow, spec, now, _who_announced(offering.worker), why)
        events.publish(events.OVERVIEW, events.SCHEDULES, events.WORK, events.flow_topic(flow.slug))


def _fault(spec: FlowSpec) -> str:
    name = spec.name.strip()
    where = f" ({spec.file}:{spec.line})" if spec.file else ""
    if not name or len(name) > MAX_NAME:
        return f"flow {name[:40]!r}{where} is not served: a flow's name must have 1 to {MAX_NAME} characters"
    return ""


def _dead_schedules(flows: Sequence[int]) -> list[str]:
    """A sentence for each schedule in these flows' code that cannot fire."""
    rows = Schedule.objects.filter(flow__in=flows, source=Schedule.Source.CODE).exclude(problem="")
    return [
        f"schedule {row.name!r} of flow {row.flow.name!r} does not fire: {row.problem}"
        for row in rows.select_related("flow")[:SCHEDULES_TOLD]
    ]


def _present(now: datetime) -> Q:
    """The offerings of workers that are there."""
    return Q(worker__connected=True) | Q(worker__last_seen_at__gt=now - PRESENT)


def _newest(flows: Collection[int], now: datetime, without: Worker | None = None) -> dict[int, Offering]:
    """For each of these flows the offering with the newest version, among workers that are there."""
    rows = Offering.objects.filter(_present(now), flow__in=flows, version__isnull=False)
    if without is not None:
        rows = rows.exclude(worker=without)
    best: dict[int, Offering] = {}
    for row in rows.select_related("version", "worker__token").defer("version__spec"):
        known = best.get(row.flow_id)
        if known is None or versions.is_older(_version(known), _version(row)):
            best[row.flow_id] = row
    return best


def _version(row: Offering) -> Version:
    assert row.version is not None
    return row.version


def _left_behind(now: datetime) -> list[tuple[Flow, Offering]]:
    """The flows whose version has left with its workers, each with the newest one that is there."""
    there = Offering.objects.filter(_present(now), flow=OuterRef("pk"), version__isnull=False)
    ours = Exists(there.filter(version__fingerprint=OuterRef("fingerprint")))
    flows = {flow.pk: flow for flow in Flow.objects.filter(Exists(there)).exclude(ours)}
    best = _newest(list(flows), now) if flows else {}
    return [(flows[pk], row) for pk, row in best.items() if not sealing.unreadable(_version(row).spec)]


def _who_announced(worker: Worker | None) -> str:
    if worker is None:
        return "server"
    return f"worker {worker.name}" + (f", token {worker.token.name}" if worker.token else "")
