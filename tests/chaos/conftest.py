from __future__ import annotations

from tests.servers.conftest import postgres as postgres
