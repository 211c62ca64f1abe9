"""What Daphne serves: HTTP through Django, sockets through Channels."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "perfect_site.settings")
django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402 - needs the settings

from perfect_site.server.assets import serve_static  # noqa: E402
from perfect_site.server.handler import Handler  # noqa: E402
from perfect_site.sockets.routing import websocket_urlpatterns  # noqa: E402

http = serve_static(Handler())
application = ProtocolTypeRouter({"http": http, "websocket": URLRouter(websocket_urlpatterns)})
