"""The address that each flow has for ever, and which flow a string means: the one that is named, and never another."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from perfect_client.wire.messages import clean_text

from flows.models import Flow, slug_of
from flows.parameters import Missing, nearest
from flows.statements import find

RESERVED = frozenset({"run-all"})  # /api/flows/run-all is an address of its own
LONGEST = 190  # characters; the rest of a slug's 200 is for a number
NAMES_SEARCHED = 5_000
TRIES = 10


def insert(flow: Flow) -> Flow:
    """Insert ``flow`` under the first free address: ``sales-eu``, else ``sales-eu-2``, …

    Another process may take the address, or add a flow of this name, at the same moment; of the latter the row is
    returned that came first.
    """
    for _ in range(TRIES):
        flow.slug = free_slug(flow.name)
        try:
            with transaction.atomic():
                flow.save(force_insert=True)
            return flow
        except IntegrityError:
            other = find(Flow, name=flow.name)
            if other is not None:
                return other
    raise RuntimeError(f"no free address was found for flow {flow.name!r}")


def free_slug(name: str) -> str:
    base = slug_of(name)[:LONGEST].rstrip("-_") or "flow"
    taken = {*RESERVED, *Flow.objects.filter(slug__startswith=base).values_list("slug", flat=True)}
    number = 1
    while (slug := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return slug


def named(text: str) -> Flow:
    """The flow of exactly this name, else of exactly this slug. Raises ``Missing`` with the nearest names."""
    text = clean_text(text)
    flow = find(Flow, name=text) or find(Flow, slug=text)
    if flow is None:
        known = list(Flow.objects.filter(archived=False).values_list("name", flat=True)[:NAMES_SEARCHED])
        hint = nearest(text, known, most=3) if known else " No worker has announced a flow yet."
        raise Missing("flow", f"There is no flow {text!r}.{hint}")
    return flow


def at(text: str) -> Flow:
    """The flow of exactly this slug, else of exactly this name. Raises ``Missing`` with the nearest slugs."""
    text = clean_text(text)
    flow = find(Flow, slug=text) or find(Flow, name=text)
    if flow is None:
        known = Flow.objects.filter(archived=False).values_list("slug", flat=True)[:NAMES_SEARCHED]
        raise Missing("flow", f"There is no flow {text[:200]!r}.{nearest(text, known, most=3)}")
    return flow
