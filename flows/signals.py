"""Signals about flows, for the apps above: ``flow_changed`` is sent when a person changed a flow or its schedules."""

from __future__ import annotations

from django.dispatch import Signal

# Sent with ``slug``, the flow's, in the transaction that changes the rows.
flow_changed = Signal()
