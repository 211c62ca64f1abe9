"""Is it up, is it ready, what does it do: for supervisors, balancers and Prometheus."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flows.models import Flow, Schedule
from perfect_site import __version__
from runs.access import Token
from runs.models import Quarantine, Run, Worker
from runs.shapes import taken_slots
from runs.states import LIVE

PLAIN = "text/plain; charset=utf-8"


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """200 while the process answers; asks nothing of the database."""
    return HttpResponse("ok\n", content_type=PLAIN)


@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers and is migrated, else 503 with the reason."""
    try:
        missing = pending_migrations()
    except DatabaseError as error:
        return HttpResponse(f"the database does not answer: {type(error).__name__}\n", status=503, content_type=PLAIN)
    if missing:
        return HttpResponse(f"{missing} migrations are not applied\n", status=503, content_type=PLAIN)
    return HttpResponse("ready\n", content_type=PLAIN)


def pending_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


@login_not_required
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format; for this machine, or with a token that may read."""
    if not (_is_loopback(request) or _may_read(request)):
        return HttpResponse("Send a token that may read: Authorization: Bearer pft_…\n", status=401, content_type=PLAIN)
    registry = CollectorRegistry()
    registry.register(Rows())
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4; charset=utf-8")


def _is_loopback(request: HttpRequest) -> bool:
    """A request that a proxy on this machine passed on comes from loopback too, and says so in its headers."""
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _may_read(request: HttpRequest) -> bool:
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    token = Token.objects.valid(secret.strip(), timezone.now()) if kind.lower() == "bearer" else None
    return token is not None and token.allows(Token.Scope.READ)


class Rows(Collector):
    """Read from the rows at each scrape: right for any number of server processes."""

    def collect(self) -> Iterator[Any]:
        now = timezone.now()
        info = GaugeMetricFamily("perfect_info", "The server's version", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield self._live_runs()
        yield self._history()
        yield self._workers()
        due = Schedule.objects.firing().filter(next_at__lt=now).count()
        yield GaugeMetricFamily("perfect_schedules_overdue", "Schedules whose time has passed", value=due)
        yield GaugeMetricFamily("perfect_facts_quarantined", "Facts set aside", value=Quarantine.objects.count())

    def _live_runs(self) -> GaugeMetricFamily:
        metric = GaugeMetricFamily("perfect_runs", "Runs that are not over, by state", labels=["state"])
        counts = dict(Run.objects.live().asked_for().order_by().values_list("state").annotate(n=Count("pk")))
        for state in sorted(LIVE):
            metric.add_metric([state], counts.get(state, 0))
        return metric

    def _history(self) -> GaugeMetricFamily:
        metric = GaugeMetricFamily(
            "perfect_flow_last_run_timestamp_seconds", "When each flow was last triggered", labels=["flow"]
        )
        newest = Run.objects.filter(flow=OuterRef("pk")).order_by("-pk").values("created_at")[:1]  # by index
        flows = Flow.objects.filter(archived=False).annotate(last=Subquery(newest)).order_by()
        for slug, last in flows.values_list("slug", "last"):
            if last is not None:
                metric.add_metric([slug], last.timestamp())
        return metric

    def _workers(self) -> GaugeMetricFamily:
        metric = GaugeMetricFamily("perfect_worker_slots", "Slots of connected workers", labels=["worker", "use"])
        taken = taken_slots()
        for pk, name, slots in Worker.objects.filter(connected=True).values_list("pk", "name", "slots"):
            metric.add_metric([name, "taken"], taken.get(pk, 0))
            metric.add_metric([name, "free"], max(0, slots - taken.get(pk, 0)))
        return metric
