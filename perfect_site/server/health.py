"""Is it up, is it ready, what does it do: for supervisors, balancers and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flows.models import Flow, Schedule
from perfect_site import __version__, addresses
from perfect_site.api.serializers import taken_slots
from runs.access import Token
from runs.db import threads
from runs.models import Quarantine, Run, Worker
from runs.rules.states import LIVE

PLAIN = "text/plain; charset=utf-8"
# What proxies add to a request that they pass on.
PASSED_ON = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
)


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 while the process answers; asks nothing of the database."""
    return HttpResponse("ok\n", content_type=PLAIN)


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers, is migrated and takes writes, else 503 with the reason."""
    if trouble := threads.trouble():
        return HttpResponse(f"{trouble}\n", status=503, content_type=PLAIN)
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
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format; for this machine, or with a token that may read."""
    if not (_is_local(request) or _may_read(request)):
        return HttpResponse("Send a token that may read: Authorization: Bearer pft_…\n", status=401, content_type=PLAIN)
    registry = CollectorRegistry()
    registry.register(Rows())
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4; charset=utf-8")


def _is_local(request: HttpRequest) -> bool:
    """A program on this machine asks. What a proxy on it passes on comes from loopback too, and need not say so: where
    people come from elsewhere, nobody is local."""
    public = urlsplit(settings.PERFECT_URL).hostname
    if settings.PERFECT_TRUSTED_PROXIES or (public and not addresses.is_loopback(public)):
        return False
    if any(name in request.META for name in PASSED_ON):
        return False
    return addresses.is_loopback(request.META.get("REMOTE_ADDR", ""))


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
