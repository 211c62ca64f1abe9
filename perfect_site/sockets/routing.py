"""Addresses of the sockets."""

from __future__ import annotations

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path, re_path
from perfect_client.wire.messages import NO_ROUTE

from perfect_site.sockets.pages import LiveConsumer
from perfect_site.sockets.workers import WorkerConsumer


class NowhereConsumer(AsyncWebsocketConsumer):
    """Any other address: a close code instead of a traceback per request."""

    async def connect(self) -> None:
        await self.accept()
        await self.close(code=NO_ROUTE)


websocket_urlpatterns = [
    path("ws/worker/", WorkerConsumer.as_asgi()),
    path("ws/live/", LiveConsumer.as_asgi()),
    re_path(r"^.*$", NowhereConsumer.as_asgi()),
]
