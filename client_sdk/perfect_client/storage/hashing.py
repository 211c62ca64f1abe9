"""One digest for equal values, in every process and every run of Python: what "the same inputs" means.

A value is written as a pickle whose bytes depend on nothing but the value: sets and dicts are sorted, paths are their
text, functions their fingerprint, and no object is remembered by its identity. What the pickle itself does not know how
to write has no digest.
"""

from __future__ import annotations

import pathlib
import pickle
from abc import ABCMeta
from collections import defaultdict
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from perfect_client.errors import HashError
from perfect_client.fingerprints import code_objects, fingerprints
from perfect_client.wire.messages import clean_text

SIZE = 16  # bytes
_SIMPLE = frozenset({type(None), bool, int, float, str, bytes})
_PROTOCOL = 4  # of 5, arrays that may be written to and those that may not would differ


class TooLarge(Exception):
    """The value is larger than the limit that was given."""


class _Sink:
    """Where the pickle goes: nothing is kept of it but the digest."""

    __slots__ = ("_hash", "_room")

    def __init__(self, limit: Optional[int]) -> None:
        self._hash, self._room = blake2b(digest_size=SIZE), limit

    def write(self, data: Any) -> None:
        if self._room is not None:
            self._room -= len(data)
            if self._room < 0:
                raise TooLarge
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


class _Canonical(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        """Asked for each object that is met; what is returned is written in its place."""
        form = _FORMS.get(type(obj))
        return None if form is None else form(obj)


def digest(value: Any, limit: Optional[int] = None) -> bytes:
    """The 16 bytes of a value. Raises ``HashError`` where there are none, ``TooLarge`` above ``limit`` bytes."""
    try:
        return _digest(value, limit, fast=True)
    except TooLarge:
        raise
    except ValueError:  # a cycle: it needs the memory of what was met, and its digest may then tell equals apart
        pass
    except Exception as wrong:  # a class may do anything when it is pickled
        raise HashError("%s: %s" % (type(wrong).__name__, wrong)) from None
    try:
        return _digest(value, limit, fast=False)
    except TooLarge:
        raise
    except Exception as wrong:
        raise HashError("%s: %s" % (type(wrong).__name__, wrong)) from None


def _digest(value: Any, limit: Optional[int], fast: bool) -> bytes:
    sink = _Sink(limit)
    pickler = _Canonical(sink, _PROTOCOL)
    pickler.fast = fast  # no memory of objects: two equal texts look like one that is used twice
    pickler.dump(value)
    return sink.digest()


def digest_inputs(inputs: Mapping[str, Any], task: str, limit: Optional[int] = None) -> bytes:
    """The digest of a call's arguments by name. Raises ``HashError`` that names the argument, ``TooLarge``."""
    if all(type(value) in _SIMPLE for value in inputs.values()):
        return _of_simple(inputs, limit)
    try:
        return digest(dict(inputs), limit)
    except HashError:
        for name, value in inputs.items():
            try:
                digest(value, limit)
            except HashError as wrong:
                raise HashError(_sentence(task, name, value, wrong)) from None
        raise


def digest_call(args: Sequence[Any], kwargs: Mapping[str, Any], task: str, limit: Optional[int] = None) -> bytes:
    """The digest of arguments as a call gives them; raises as ``of_inputs`` does."""
    if not kwargs and all(type(value) in _SIMPLE for value in args):
        return _of_written(repr(args), limit)
    return digest_inputs({**{"#%d" % number: value for number, value in enumerate(args, 1)}, **kwargs}, task, limit)


def _of_simple(inputs: Mapping[str, Any], limit: Optional[int]) -> bytes:
    """Most calls take numbers and texts: how Python writes them tells them apart, and takes a fifth of the time."""
    return _of_written(repr(sorted(inputs.items())), limit)


def _of_written(text: str, limit: Optional[int]) -> bytes:
    written = text.encode("utf-8", "backslashreplace")
    if limit is not None and len(written) > limit:
        raise TooLarge
    return blake2b(written, digest_size=SIZE).digest()


def _sentence(task: str, name: str, value: Any, wrong: HashError) -> str:
    kind = type(value).__qualname__
    if type(value).__module__ != "builtins":
        kind = "%s.%s" % (type(value).__module__, kind)
    return (
        "the task %r cannot be cached by its inputs: its argument %r, a %s, has no digest (%s); "
        "leave it out with cache_policy=INPUTS - %r, or write cache_policy=NO_CACHE"
        % (task, name, kind, clean_text(wrong, 200), name)
    )


# ------------------------------------------------------------------------------------------------------------- forms


def _items(value: Mapping[Any, Any]) -> List[Any]:
    """Keys and values in turn, sorted by the key: the order in which a dict was filled does not count."""
    if all(type(key) is str for key in value):
        return [part for key in sorted(value) for part in (key, value[key])]
    keyed = sorted(((digest(key), key) for key in value), key=lambda pair: pair[0])
    return [part for mark, key in keyed for part in (mark, value[key])]


def _members(value: Iterable[Any]) -> List[Any]:
    listed = list(value)
    return sorted(listed) if all(type(item) is str for item in listed) else sorted(map(digest, listed))


def _function(value: FunctionType) -> Any:
    cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
    made_of = fingerprints.of_function(value).digest
    return ("function", value.__module__, value.__qualname__, made_of, value.__defaults__, value.__kwdefaults__, cells)


def _class(value: type) -> Any:
    return ("class", value.__module__, value.__qualname__)


def _path(value: pathlib.PurePath) -> Any:
    return ("path", type(value).__name__, str(value))


_FORMS: Dict[type, Callable[[Any], Any]] = {
    dict: lambda value: ("dict", _items(value)),
    defaultdict: lambda value: ("defaultdict", value.default_factory, _items(value)),
    set: lambda value: ("set", _members(value)),
    frozenset: lambda value: ("frozenset", _members(value)),
    FunctionType: _function,
    CodeType: code_objects.form,
    type: _class,
    ABCMeta: _class,
    pathlib.PosixPath: _path,
    pathlib.WindowsPath: _path,
    pathlib.PurePosixPath: _path,
    pathlib.PureWindowsPath: _path,
}
