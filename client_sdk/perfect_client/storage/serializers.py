"""How results become bytes and come back: ``pickle``, ``json``, and both compressed.

Pickles are read on the worker's side only, from folders that nobody else may write to. The server never unpickles.
"""

from __future__ import annotations

import json
import pickle
import zlib
from typing import Any, Dict, List

from perfect_client.errors import ConfigurationError


class TooLarge(ValueError):
    """The result is larger than what is kept."""


class _Limited:
    """A file that refuses to grow past a limit, so that a huge result is noticed long before it is written."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.parts: List[bytes] = []

    def write(self, data: Any) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge
        self.parts.append(bytes(data))


class Serializer:
    """Something with ``dumps(value) -> bytes`` and ``loads(data) -> value`` will do as well."""

    def dumps(self, value: Any) -> bytes:
        raise NotImplementedError

    def loads(self, data: bytes) -> Any:
        raise NotImplementedError


class PickleSerializer(Serializer):
    """Whatever ``pickle`` can write."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, 5)

    def dumps_within(self, value: Any, limit: int) -> bytes:
        """The same; raises ``TooLarge`` as soon as it would be more than ``limit`` bytes."""
        if value is None or type(value) in (bool, int, float):
            return pickle.dumps(value, 5)
        file = _Limited(limit)
        pickle.Pickler(file, 5).dump(value)
        return b"".join(file.parts)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


class JSONSerializer(Serializer):
    """JSON: readable by anything, but a tuple comes back as a list, and what JSON has no word for is refused."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class CompressedSerializer(Serializer):
    """Another serializer's bytes, compressed by zlib."""

    def __init__(self, serializer: Any = "pickle") -> None:
        self.serializer = serializer_of(serializer)

    def dumps(self, value: Any) -> bytes:
        return zlib.compress(self.serializer.dumps(value), 6)

    def loads(self, data: bytes) -> Any:
        return self.serializer.loads(zlib.decompress(data))


_NAMED: Dict[str, Any] = {"pickle": PickleSerializer, "json": JSONSerializer}


def serializer_of(given: Any) -> Any:
    """By name (``pickle``, ``json``, ``compressed/pickle``, ``compressed/json``) or as an object.

    Raises ``ConfigurationError``.
    """
    if isinstance(given, str):
        head, _, name = given.rpartition("/")
        if name in _NAMED and head in ("", "compressed"):
            return CompressedSerializer(name) if head else _NAMED[name]()
    elif isinstance(given, type) and issubclass(given, Serializer):
        return given()
    elif callable(getattr(given, "dumps", None)) and callable(getattr(given, "loads", None)):
        return given
    raise ConfigurationError(
        "a result serializer is 'pickle', 'json', 'compressed/pickle', 'compressed/json' or an object with dumps and "
        "loads, not %r" % (given,)
    )
