"""What the list of flows can be narrowed by."""

from __future__ import annotations

import django_filters
from django import forms
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from flows.models import Flow


class FlowFilter(django_filters.FilterSet):
    q = django_filters.CharFilter(method="search", label="Find", max_length=200)
    tag = django_filters.CharFilter(method="tagged", label="Tag", max_length=200)

    archived = django_filters.BooleanFilter(method="in_library", label="Archived", widget=forms.CheckboxInput)

    class Meta:
        model = Flow
        fields: list[str] = []

    def in_library(self, flows: QuerySet[Flow], name: str, value: bool) -> QuerySet[Flow]:
        """The library, or what people have taken out of it; flows that only others call are in neither."""
        return flows.filter(archived=True).exclude(archived_by="") if value else flows.filter(archived=False)

    def search(self, flows: QuerySet[Flow], name: str, value: str) -> QuerySet[Flow]:
        return flows.filter(Q(name__icontains=value.strip()) | Q(description__icontains=value.strip()))

    def tagged(self, flows: QuerySet[Flow], name: str, value: str) -> QuerySet[Flow]:
        return flows.annotate(tag_text=Cast("tags", TextField())).filter(tag_text__contains=f'"{value.strip()}"')
