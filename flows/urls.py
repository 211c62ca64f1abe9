"""Addresses about flows and schedules. Slugs keep letters of every script, so they are plain path parts."""

from __future__ import annotations

from django.urls import path

from flows import views

urlpatterns = [
    path("flows/", views.flows, name="flows"),
    path("flows/<str:slug>/", views.flow, name="flow"),
    path("flows/<str:slug>/run/", views.run, name="flow-run"),
    path("flows/<str:slug>/_history/", views.history, name="flow-history"),
    path("flows/<str:slug>/_bars/", views.flow_bars, name="flow-bars"),
    path("flows/<str:slug>/_notices/", views.notices, name="flow-notices"),
    path("flows/<str:slug>/_offers/", views.offers, name="flow-offers"),
    path("flows/<str:slug>/archive/", views.archive, name="flow-archive"),
    path("flows/<str:slug>/unarchive/", views.unarchive, name="flow-unarchive"),
    path("run-all/", views.run_all, name="run-all"),
    path("schedules/", views.schedule_list, name="schedules"),
    path("schedules/_rows/", views.schedule_rows, name="schedule-rows"),
    path("schedules/<int:pk>/", views.schedule, name="schedule"),
    path("schedules/<int:pk>/pause/", views.pause, name="schedule-pause"),
    path("schedules/<int:pk>/resume/", views.resume, name="schedule-resume"),
]
