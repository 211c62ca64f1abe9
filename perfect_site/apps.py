"""The roof as Django sees it."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.core import checks

from perfect_site.checks import environment, transport


class SiteConfig(AppConfig):
    name = "perfect_site"
    verbose_name = "Perfect"
    default = True

    def ready(self) -> None:
        checks.register(environment)
        checks.register(transport, checks.Tags.security, deploy=True)


class ConsoleConfig(admin_apps.AdminConfig):
    default = False
    default_site = "perfect_site.console.site.Console"
