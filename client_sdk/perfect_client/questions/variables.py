"""``Variable``: small JSON values that people and flows share, kept by the server."""

from __future__ import annotations

import re
from typing import Any, List, Optional, Type

from perfect_client.core.previews import preview
from perfect_client.questions import client
from perfect_client.schema.encoding import to_json
from perfect_client.wire.messages import MAX_VARIABLE_BYTES, clean_json, dumps

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Variable:
    """A named JSON value. In asynchronous code each method returns an awaitable; the twins ``aget``, ``aset`` and
    ``aunset`` always do."""

    @classmethod
    def get(cls, name: str, default: Any = None) -> Any:
        """The value; ``default`` if the variable is not set."""
        return _get(name, default, None)

    @classmethod
    async def aget(cls, name: str, default: Any = None) -> Any:
        return await _get(name, default, True)

    @classmethod
    def set(cls, name: str, value: Any, tags: Optional[List[str]] = None, overwrite: bool = False) -> Any:
        """Keep a value, any that JSON can say, of at most 64 KiB. Raises ``ValueError`` if the variable is set
        already and ``overwrite`` is not True."""
        return _set(cls, name, value, tags, overwrite, None)

    @classmethod
    async def aset(cls, name: str, value: Any, tags: Optional[List[str]] = None, overwrite: bool = False) -> Any:
        return await _set(cls, name, value, tags, overwrite, True)

    @classmethod
    def unset(cls, name: str) -> Any:
        """Forget the variable; whether it was set."""
        return client.ask("variable.unset", {"name": _checked(name)}, lambda body: bool(body["unset"]))

    @classmethod
    async def aunset(cls, name: str) -> Any:
        return await client.ask("variable.unset", {"name": _checked(name)}, lambda body: body["unset"], later=True)

    def __init__(self, name: str, value: Any, tags: Optional[List[str]] = None) -> None:
        self.name, self.value, self.tags = name, value, list(tags or [])

    def __repr__(self) -> str:
        return "Variable(name=%r, value=%r)" % (self.name, self.value)


def _get(name: str, default: Any, later: Optional[bool]) -> Any:
    return client.ask("variable.get", {"name": _checked(name)}, lambda body: body.get("value", default), later=later)


def _set(
    cls: Type[Variable], name: str, value: Any, tags: Optional[List[str]], overwrite: bool, later: Optional[bool]
) -> Any:
    body = {
        "name": _checked(name),
        "value": _sayable(name, value),
        "tags": list(tags or []),
        "overwrite": bool(overwrite),
    }
    return client.ask("variable.set", body, lambda said: cls(name, value, tags), later=later)


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "a variable's name is 1 to 200 letters, digits, dots, dashes and underscores, not %s" % preview(name)
        )
    return name


def _sayable(name: str, value: Any) -> Any:
    try:
        told = clean_json(to_json(value))
    except (TypeError, ValueError, RecursionError) as wrong:
        raise ValueError("variable %r cannot hold this value: %s" % (name, wrong)) from None
    size = len(dumps(told).encode("utf-8", "backslashreplace"))
    if size > MAX_VARIABLE_BYTES:
        raise ValueError("variable %r takes %d bytes as JSON; %d are allowed" % (name, size, MAX_VARIABLE_BYTES))
    return told
