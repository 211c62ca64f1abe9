"""Addresses about flows and schedules. Slugs keep letters of every script, so they are plain path parts."""

from __future__ import annotations

from django.urls import path

from perfect_site.dashboard import flow_views

urlpatterns = [
    path("flows/", flow_views.flows, name="flows"),
    path("flows/<str:slug>/", flow_views.flow, name="flow"),
    path("flows/<str:slug>/run/", flow_views.run, name="flow-run"),
    path("flows/<str:slug>/_history/", flow_views.history, name="flow-history"),
    path("flows/<str:slug>/_bars/", flow_views.flow_bars, name="flow-bars"),
    path("flows/<str:slug>/_notices/", flow_views.notices, name="flow-notices"),
    path("flows/<str:slug>/_offers/", flow_views.offers, name="flow-offers"),
    path("flows/<str:slug>/archive/", flow_views.archive, name="flow-archive"),
    path("flows/<str:slug>/unarchive/", flow_views.unarchive, name="flow-unarchive"),
    path("run-all/", flow_views.run_all, name="run-all"),
    path("schedules/", flow_views.schedule_list, name="schedules"),
    path("schedules/_rows/", flow_views.schedule_rows, name="schedule-rows"),
    path("schedules/<int:pk>/", flow_views.schedule, name="schedule"),
    path("schedules/<int:pk>/pause/", flow_views.pause, name="schedule-pause"),
    path("schedules/<int:pk>/resume/", flow_views.resume, name="schedule-resume"),
]
