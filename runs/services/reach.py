"""Which attempts can be reached over the connections of this server process: a worker may have several processes."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django.db.models import Q


def within(
    workers: Collection[UUID], without: Collection[int], besides: Collection[int], *, worker: str, fence: str
) -> Q:
    """Rows of ``workers`` but for the attempts ``without``, and rows of the attempts ``besides``.

    ``worker`` and ``fence`` name the fields. ``without`` are held by draining processes that are connected to another
    server process, ``besides`` by ones connected here, whose worker's newest process may be connected elsewhere.
    """
    theirs = Q(**{f"{worker}__in": list(workers)})
    if without:
        theirs &= ~Q(**{f"{fence}__in": list(without)})
    return theirs | Q(**{f"{fence}__in": list(besides)}) if besides else theirs
