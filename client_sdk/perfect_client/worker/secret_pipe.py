"""The pipe by which the processes of a run tell their supervisor the secrets that they learn.

The pipe is the run's own, and blocking where it is written: a process goes on, and can print a secret, only when the
pipe has it. The supervisor reads this pipe after the run's output and before it keeps that output, so it knows each
secret before a line with it. Nothing of this is ever written to a disk.

A secret travels in lines of at most ``PIPE_BUF`` bytes, which the kernel keeps whole however many processes and
threads write (pipe(7)): ``<pid>.<number> <m or l> <base64>``, more to come or the last.
"""

from __future__ import annotations

import binascii
import contextlib
import itertools
import os
from typing import Dict, List, Optional

from perfect_client.schema.spellings import Written

_PIECE_BYTES = 300  # of a secret in one line: with the rest it is shorter than 512, POSIX's least PIPE_BUF
_READ_BYTES = 64 * 1024
_MOST_READS = 32  # at once: 2 MiB are more than a pipe holds
_MOST_UNFINISHED = 1000  # secrets of which a part came: their processes were killed


class SecretSender:
    """The run's side, in its process and in those forked from it: ``tell`` returns when the pipe has the secrets."""

    def __init__(self, pipe: int) -> None:
        self._pipe, self._numbers = pipe, itertools.count(1)
        self._identity = self._who()

    def tell(self, secrets: List[Written]) -> None:
        for secret in secrets:
            raw = secret if isinstance(secret, bytes) else b"t" + secret.encode("utf-8", "surrogatepass")
            self._send(b"b" + raw if isinstance(secret, bytes) else raw)

    def _send(self, raw: bytes) -> None:
        name = b"%d.%d" % (os.getpid(), next(self._numbers))
        with contextlib.suppress(OSError):  # the supervisor is gone, and this process with it
            for at in range(0, len(raw), _PIECE_BYTES):
                last = at + _PIECE_BYTES >= len(raw)
                piece = binascii.b2a_base64(raw[at : at + _PIECE_BYTES], newline=False)
                if self._who() == self._identity:
                    os.write(self._pipe, b"%s %s %s\n" % (name, b"l" if last else b"m", piece))

    def _who(self) -> Optional[object]:
        """Which pipe it is: code that closes all descriptors may get another file under this number."""
        try:
            found = os.fstat(self._pipe)
        except OSError:
            return None
        return found.st_dev, found.st_ino


class SecretReceiver:
    """The supervisor's side. ``hear`` never waits."""

    def __init__(self) -> None:
        self.fd = -1
        self._rest = b""
        self._parts: Dict[bytes, bytes] = {}

    def open(self) -> int:
        """A new pipe; its writing end, for the run."""
        self.close()
        self.fd, writing = os.pipe()
        os.set_blocking(self.fd, False)
        self._rest = b""
        self._parts.clear()
        return writing

    def hear(self) -> List[Written]:
        """The secrets that have come whole since it was last asked."""
        found: List[Written] = []
        for _ in range(_MOST_READS):
            try:
                data = os.read(self.fd, _READ_BYTES) if self.fd >= 0 else b""
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                break
            found += self._understood(data)
        return found

    def _understood(self, data: bytes) -> List[Written]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: List[Written] = []
        for line in lines:
            with contextlib.suppress(ValueError):  # somebody else wrote into the pipe
                name, kind, piece = line.split(b" ")
                raw = self._parts.pop(name, b"") + binascii.a2b_base64(piece)
                if kind == b"l":
                    found.append(raw[1:] if raw[:1] == b"b" else raw[1:].decode("utf-8", "surrogatepass"))
                elif len(self._parts) < _MOST_UNFINISHED:
                    self._parts[name] = raw
        return found

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
