"""What the history can be narrowed by. Each filter is a range of an index or looks at a bounded part."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import django_filters
from django import forms
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import QueryDict
from perfect_client.schema.masking import AMBIGUOUS_WORDS, SECRET_WORDS

from flows import sealing
from flows.models import Flow
from flows.parameters import masked
from perfect_site.dashboard.presenters import as_id, id_at
from runs.models import Run
from runs.rules.states import SHOWN, RunState

PAGE = 50
VERIFIED = 1_000  # runs with secrets among their parameters that a search reads one by one
SEARCHED = 20_000  # runs that a search for text looks at: the newest ones, or the newest before ``until``
STATES = [(state.value, SHOWN[state][1]) for state in RunState if state is not RunState.OFFERED]


class RunFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(
        choices=STATES, method="keep", label="State", widget=forms.CheckboxSelectMultiple
    )
    flow = django_filters.ModelChoiceFilter(
        queryset=Flow.objects.all(), to_field_name="slug", label="Flow", empty_label="all flows"
    )
    q = django_filters.CharFilter(method="search", label="Find", max_length=200)
    tag = django_filters.CharFilter(method="tagged", label="Tag", max_length=200)
    since = django_filters.DateFilter(method="made_since", label="Since", widget=forms.DateInput({"type": "date"}))
    until = django_filters.DateFilter(method="made_until", label="Until", widget=forms.DateInput({"type": "date"}))

    called = django_filters.BooleanFilter(method="with_called", label="Sub-flows", widget=forms.CheckboxInput)

    class Meta:
        model = Run
        fields: list[str] = []

    @property
    def states(self) -> list[str]:
        """The states asked for, OFFERED being a part of what people see as pending."""
        chosen = list(self.form.cleaned_data.get("state") or [])
        return [*chosen, "OFFERED"] if "PENDING" in chosen else chosen

    def keep(self, runs: QuerySet[Run], name: str, value: Any) -> QuerySet[Run]:
        return runs  # ``page_of`` reads each state by its own range

    def with_called(self, runs: QuerySet[Run], name: str, value: Any) -> QuerySet[Run]:
        """Unasked, what other runs have called is left out: one run may call thousands."""
        return runs if value else runs.filter(parent=None)

    def made_since(self, runs: QuerySet[Run], name: str, value: Any) -> QuerySet[Run]:
        return runs.filter(pk__gte=id_at(datetime.combine(value, time(), UTC)))

    def made_until(self, runs: QuerySet[Run], name: str, value: Any) -> QuerySet[Run]:
        return runs.filter(pk__lt=id_at(datetime.combine(value + timedelta(days=1), time(), UTC)))

    def tagged(self, runs: QuerySet[Run], name: str, value: str) -> QuerySet[Run]:
        texts = self._newest(runs).annotate(tag_text=Cast("tags", TextField()))
        return texts.filter(tag_text__contains=f'"{value.strip()}"')

    def search(self, runs: QuerySet[Run], name: str, value: str) -> QuerySet[Run]:
        """An id or its end, a flow's name, or text in parameters, error and tags."""
        text = value.strip()
        exact = as_id(text)
        if exact is not None:
            return runs.filter(pk=exact)
        flows = list(Flow.objects.filter(name__icontains=text).values_list("pk", flat=True)[:50])
        if flows:
            return runs.filter(flow__in=flows)
        texts = self._newest(runs).annotate(
            parameter_text=Cast("parameters", TextField()),
            tag_text=Cast("tags", TextField()),
            id_text=Cast("pk", TextField()),
        )
        found = self._in_parameters(texts, text) | Q(error__icontains=text) | Q(tag_text__icontains=text)
        found |= Q(name__icontains=text)
        if re.fullmatch("[0-9a-fA-F]{4,}", text):
            found |= Q(id_text__endswith=text.lower())
        return texts.filter(found)

    def _in_parameters(self, texts: QuerySet[Run], text: str) -> Q:
        """Text in the parameters as they are shown: a search must not tell whether a masked value begins with ``a``."""
        told = Q(parameter_text__icontains=text)
        schemas = Flow.objects.annotate(text=Cast("parameters", TextField()))
        marked = schemas.filter(Q(text__contains='"writeOnly"') | Q(text__contains='"password"'))
        secretive = Q(flow__in=list(marked.values_list("pk", flat=True))) | Q(parameter_text__contains=sealing.MARK)
        for word in (*SECRET_WORDS, *AMBIGUOUS_WORDS):
            for separator in ("_", "-", " "):
                secretive |= Q(parameter_text__icontains=word.replace("_", separator))
        rows = texts.filter(told & secretive).select_related("flow").order_by("-pk")[:VERIFIED]
        shown = [run.pk for run in rows if text.lower() in json.dumps(masked(run.flow, run.parameters)).lower()]
        return (told & ~secretive) | Q(pk__in=shown)

    def _newest(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        """The part of the history that is looked through row by row."""
        until = self.form.cleaned_data.get("until")
        newest = self.made_until(Run.objects.all(), "until", until) if until else Run.objects.all()
        oldest = newest.order_by("-pk").values_list("pk", flat=True)[SEARCHED - 1 : SEARCHED].first()
        return runs.filter(pk__gte=oldest) if oldest is not None else runs


def page_of(
    runs: QuerySet[Run], states: list[str], *, before: UUID | None = None, after: UUID | None = None, size: int = PAGE
) -> tuple[list[UUID], bool, bool]:
    """The ids of one page, newest first, and whether there is something newer and older.

    Every state is read by its own range of the index and the ranges are merged here: with several states at once a
    planner may well sort a million rows for one page.
    """
    up = after is not None
    if before is not None:
        runs = runs.filter(pk__lt=before)
    if after is not None:
        runs = runs.filter(pk__gt=after)
    parts = [runs.filter(state=state) for state in dict.fromkeys(states)] or [runs]
    found: list[UUID] = []
    for part in parts:
        found += part.order_by("pk" if up else "-pk").values_list("pk", flat=True)[: size + 1]
    found.sort(reverse=not up)
    more, ids = len(found) > size, found[:size]
    if up:
        return ids[::-1], more, True
    return ids, before is not None, more


def without(query: QueryDict, *names: str) -> str:
    """The query string without these names and without empty values, to hang a new cursor on."""
    kept = [(name, value) for name, values in query.lists() if name not in names for value in values if value]
    return urlencode(kept)
