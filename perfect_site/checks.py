"""What ``manage.py check`` says about Perfect's own settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Info, Warning

from perfect_site import env


def environment(app_configs: Sequence[Any] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Names that nobody reads are most often misspelt."""
    return [Warning(sentence, id="perfect.W001") for sentence in env.unknown(os.environ)]


def transport(app_configs: Sequence[Any] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Without TLS Django's own checks about cookies and HSTS cannot be met, so they are silenced; this says why."""
    if settings.PERFECT_URL.startswith("https://"):
        return []
    if settings.PERFECT_URL:
        hint = "Put a proxy that speaks TLS before it and give its https:// address as PERFECT_URL."
        return [Warning("People's passwords and sessions cross the network unencrypted.", hint=hint, id="perfect.W002")]
    return [Info("Without PERFECT_URL this server is meant for its own machine only.", id="perfect.I001")]
