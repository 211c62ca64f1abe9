"""Messages with file descriptors between a supervisor and its zygote: a length, JSON, and SCM_RIGHTS beside them."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any, Dict, List, Sequence, Tuple

_HEAD = struct.Struct("<II")  # bytes of JSON, number of descriptors
_MAX_FDS = 64  # descriptors that one read can bring

Message = Dict[str, Any]


class Channel:
    """One end of the socket pair. Orders to the zygote are tiny, so sending never waits for a reader in practice."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self._fds: List[int] = []

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message. Raises ``OSError`` when the other end is gone (or, on a non-blocking end, is stuck)."""
        body = json.dumps(message, separators=(",", ":")).encode()
        data = memoryview(_HEAD.pack(len(body), len(fds)) + body)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._sock.sendmsg([data], rights)
        while sent < len(data):
            sent += self._sock.send(data[sent:])

    def receive(self) -> List[Tuple[Message, List[int]]]:
        """The messages that are complete after one read; raises ``EOFError`` when the other end is gone.

        On a non-blocking end ``BlockingIOError`` says that there is nothing to read.
        """
        try:
            data, rights, _flags, _address = self._sock.recvmsg(1 << 16, socket.CMSG_SPACE(_MAX_FDS * 4))
        except ConnectionError:
            raise EOFError from None
        if not data:
            raise EOFError
        for level, kind, content in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._fds.extend(numbers)
        self._data += data
        return list(self._complete())

    def _complete(self) -> List[Tuple[Message, List[int]]]:
        done = []
        while len(self._data) >= _HEAD.size:
            size, count = _HEAD.unpack_from(self._data)
            if len(self._data) < _HEAD.size + size:
                break
            message = json.loads(bytes(self._data[_HEAD.size : _HEAD.size + size]))
            del self._data[: _HEAD.size + size]
            fds, self._fds = self._fds[:count], self._fds[count:]
            done.append((message, fds))
        return done

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._sock.close()
