"""What a live value is, in plain tuples: data within bounds, own functions and classes as references, the rest by type.

No code of the user runs for it: no ``__repr__``, ``__eq__``, ``__hash__``, ``__reduce__``, property or ``__getattr__``.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
import types
from collections import deque
from hashlib import blake2b
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Set, Tuple

from perfect_client.fingerprints import code_objects
from perfect_client.fingerprints.user_code import is_own, is_own_module

LookedUp = Tuple[Dict[str, Any], str, Any]
ABSENT = object()

MAX_VALUES = 5000  # of one global, or of all that one function closes over
MAX_ITEMS = 1000  # a larger container counts by its type and its length
MAX_TEXT = 1 << 20  # characters or bytes; of a longer one its length and its beginning count
_MAX_DEPTH = 30
_ATOMS = frozenset({type(None), bool, float, complex, type(...), type(NotImplemented)})
_CONTENTS = (dict, list, tuple, set, frozenset, str, bytes, int, float)
# Immutable values of the standard library, which know how to write themselves.
_WRITTEN = frozenset(
    {
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
        "datetime.date",
        "datetime.timedelta",
        "datetime.timezone",
        "zoneinfo.ZoneInfo",
        "builtins.range",
        "ipaddress.IPv4Address",
        "ipaddress.IPv6Address",
        "ipaddress.IPv4Network",
        "ipaddress.IPv6Network",
    }
)
_PATHS = frozenset("pathlib.%sPath" % name for name in ("Posix", "Windows", "PurePosix", "PureWindows"))
_PATHS |= frozenset(name.replace("pathlib.", "pathlib._local.") for name in _PATHS)  # since 3.13
_REDUCED = frozenset({"operator.methodcaller", "operator.attrgetter", "operator.itemgetter"})
# Objects of the standard library that lead to functions, and the attributes that do.
_LEADING: Dict[str, Tuple[str, ...]] = {
    "functools.cached_property": ("func",),
    "functools.partialmethod": ("func", "args", "keywords"),
    "functools.singledispatchmethod": ("dispatcher", "func"),
    "dataclasses.Field": ("name", "default", "default_factory", "init", "compare"),
    "perfect_client.engine.decorators.Task": ("fn",),
    "perfect_client.engine.decorators.Flow": ("fn",),
    "perfect_client.engine.decorated.Bound": ("__func__", "__self__"),
}


def is_own_class(cls: type) -> bool:
    """Whether a class is of the user's own files."""
    name = vars(cls).get("__module__")
    if not isinstance(name, str):  # only classes that are written in C have none
        return False
    module = sys.modules.get(name)
    return is_own_module(module) if isinstance(module, types.ModuleType) else name != "builtins"


def name_of(cls: type) -> str:
    """A class's name; with its module where that is not the user's, whose modules may be called by many names."""
    return cls.__qualname__ if is_own_class(cls) else "%s.%s" % (cls.__module__, cls.__qualname__)


class Snapshot:
    """``form(value)``, and in ``refs`` the own functions and classes that were met, in the order of their numbers.

    ``looked_up``: which value was found under which name of which module's or class's names, or ``ABSENT``.
    ``is_fixed``: whether the forms of all values stay what they are as long as the values are the same objects.
    """

    def __init__(self, file: str = "", room: int = MAX_VALUES) -> None:
        self.refs: List[Any] = []
        self.looked_up: List[LookedUp] = []
        self.is_fixed = True
        self._room = room
        self._open: Set[int] = set()
        self._folders = _folders_of(file)

    def form(self, value: Any) -> Any:
        """Equal for values that mean the same, whatever the process."""
        kind = type(value)
        self._room -= 1
        if kind in _ATOMS:
            return value
        if self._room < 0 or len(self._open) > _MAX_DEPTH or id(value) in self._open:
            return ("more", name_of(kind))
        self._open.add(id(value))
        try:
            return self._compound(kind, value)
        finally:
            self._open.discard(id(value))

    def _compound(self, kind: type, value: Any) -> Any:
        write = _EXACT.get(kind)
        if write is not None:
            self.is_fixed = self.is_fixed and kind not in _CHANGING
            return write(self, value)
        if issubclass(kind, type):
            return self._class(value)
        if issubclass(kind, types.ModuleType):
            return ("module",) if is_own_module(value) else ("module", str(vars(value).get("__name__")))
        if is_own_class(kind):
            return self._instance(kind, value)
        return self._foreign(kind, value)

    def refer(self, target: Any) -> Tuple[str, int]:
        """The number of a function, a class or whatever else has a fingerprint of its own."""
        self.refs.append(target)
        return ("ref", len(self.refs) - 1)

    # ------------------------------------------------------------------------------------------------------- plain data

    def _int(self, value: int) -> Any:
        return value if int.bit_length(value) < 1000 else ("int", hex(value))  # long ones cannot be written in decimals

    def _text(self, value: str) -> Any:
        if len(value) > MAX_TEXT:
            return ("text", len(value), _digest(value[:MAX_TEXT].encode("utf-8", "backslashreplace")))
        return self._place(value) if os.path.isabs(value) else value

    def _place(self, path: str) -> Any:
        """A path in or above the folder of the code is told by where it is from there: checkouts may lie anywhere."""
        for folder in self._folders:
            if path == folder or path.startswith(folder + os.sep):
                return ("here", path[len(folder) :])
            above = path.rstrip(os.sep) + os.sep
            if above != os.sep and folder.startswith(above):
                return ("above", folder[len(above) :].count(os.sep))
        return path

    def _bytes(self, value: Any) -> Any:
        held = bytes(value[:MAX_TEXT])
        return (type(value).__name__, len(value), held if len(held) < 1000 else _digest(held))

    def _items(self, value: Dict[Any, Any]) -> Any:
        """The order in which a dict was filled does not count."""
        if dict.__len__(value) > MAX_ITEMS:
            return ("large", "dict", dict.__len__(value))
        pairs = list(dict.items(value))
        if all(type(key) is str for key, _ in pairs):
            pairs.sort(key=lambda pair: str(pair[0]))
        else:
            pairs.sort(key=lambda pair: self._order(pair[0]))
        return ("dict", *[(self.form(key), self.form(item)) for key, item in pairs])

    def _sequence(self, base: type, items: Iterable[Any], length: int) -> Any:
        if length > MAX_ITEMS:
            return ("large", base.__name__, length)
        return (base.__name__, *[self.form(item) for item in items])

    def _members(self, base: type, items: Iterable[Any], length: int) -> Any:
        if length > MAX_ITEMS:
            return ("large", base.__name__, length)
        return (base.__name__, *[self.form(item) for item in sorted(items, key=self._order)])

    def _order(self, item: Any) -> str:
        """What keys and members are sorted by: the same in each process."""
        if type(item) is str:
            return repr(item)
        apart = Snapshot(room=100)
        return repr((apart.form(item), [getattr(ref, "__qualname__", "") for ref in apart.refs]))

    # ---------------------------------------------------------------------------------------------- functions and types

    def _function(self, fn: types.FunctionType) -> Any:
        if is_own(fn.__code__.co_filename):
            return self.refer(fn)
        known = fn.__dict__
        led = [known[name] for name in ("registry", "__wrapped__") if name in known]
        if not led:
            led = [held for held in map(_content, fn.__closure__ or ()) if type(held) in _CALLABLE]
        self.is_fixed = self.is_fixed and not led
        # A wrapper has the name and the module of what it wraps.
        name = fn.__code__.co_name if "__wrapped__" in known else fn.__qualname__
        return ("function", str(fn.__globals__.get("__name__")), name, *map(self.form, led))

    def _builtin(self, value: Any) -> Any:
        owner = value.__self__
        about = () if owner is None or isinstance(owner, types.ModuleType) else (self.form(owner),)
        return ("builtin", value.__module__, value.__qualname__, *about)

    def _class(self, cls: type) -> Any:
        return self.refer(cls) if is_own_class(cls) else ("class", name_of(cls))

    def _instance(self, kind: type, value: Any) -> Any:
        """An object of a class of the user's: its class and its attributes, as far as they are plain."""
        self.is_fixed = False
        contents = [_EXACT[base](self, value) for base in _CONTENTS if issubclass(kind, base)][:1]
        state = sorted(state_of(kind, value).items(), key=lambda pair: str(pair[0]))
        if len(state) > MAX_ITEMS:
            return ("large", self._class(kind), len(state))
        return ("instance", self._class(kind), *contents, *[(str(name), self.form(held)) for name, held in state])

    def _foreign(self, kind: type, value: Any) -> Any:
        name = "%s.%s" % (kind.__module__, kind.__qualname__)
        if name in _WRITTEN:
            return (name, repr(value))
        if name in _PATHS:
            return ("path", kind.__name__, self._text(str(value)))
        if name in _REDUCED:
            return (name, *map(self.form, value.__reduce__()[1:]))
        if name in ("datetime.datetime", "datetime.time"):
            return (name, repr(value.replace(tzinfo=None)), value.fold, self.form(value.tzinfo))
        if name in _LEADING:
            self.is_fixed = False
            return (name, *[self.form(getattr(value, attribute, None)) for attribute in _LEADING[name]])
        wrapped = dict_of(value).get("__wrapped__")
        return ("object", name) if wrapped is None else ("object", name, self.form(wrapped))


def state_of(kind: type, value: Any) -> Dict[Any, Any]:
    """The attributes of an object, slots included."""
    found: Dict[Any, Any] = {}
    for base in reversed(kind.__mro__):
        if base is not object and is_own_class(base):
            slots = [item for item in vars(base).items() if type(item[1]) is types.MemberDescriptorType]
            for name, slot in slots:
                try:
                    found[name] = slot.__get__(value)
                except AttributeError:  # nothing was assigned yet
                    pass
    found.update(dict_of(value))
    return found


def dict_of(value: Any) -> Dict[Any, Any]:
    """``vars(value)``, without asking the object's class; empty where there is none."""
    try:
        known = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return known if type(known) is dict else {}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was assigned yet
        return None


@functools.lru_cache(maxsize=256)
def _folders_of(file: str) -> Tuple[str, ...]:
    if not file or file.startswith("<"):
        return ()
    folder = os.path.dirname(os.path.abspath(file))
    return tuple(dict.fromkeys((folder, os.path.realpath(folder))))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


_CALLABLE: FrozenSet[type] = frozenset({types.FunctionType, types.MethodType, functools.partial})
_LRU: type = type(functools.lru_cache()(lambda: None))
_Writers = Dict[type, Callable[[Snapshot, Any], Any]]
_EXACT: _Writers = {
    int: Snapshot._int,
    str: Snapshot._text,
    bytes: Snapshot._bytes,
    bytearray: Snapshot._bytes,
    float: lambda to, value: float.__repr__(value),
    dict: Snapshot._items,
    list: lambda to, value: to._sequence(list, list.__iter__(value), list.__len__(value)),
    tuple: lambda to, value: to._sequence(tuple, tuple.__iter__(value), tuple.__len__(value)),
    deque: lambda to, value: to._sequence(deque, deque.__iter__(value), deque.__len__(value)),
    set: lambda to, value: to._members(set, set.__iter__(value), set.__len__(value)),
    frozenset: lambda to, value: to._members(frozenset, frozenset.__iter__(value), frozenset.__len__(value)),
    slice: lambda to, value: ("slice", *map(to.form, (value.start, value.stop, value.step))),
    types.SimpleNamespace: lambda to, value: ("namespace", to.form(dict_of(value))),
    types.MappingProxyType: lambda to, value: ("proxy", *map(to.form, gc.get_referents(value))),
    types.FunctionType: Snapshot._function,
    types.BuiltinFunctionType: Snapshot._builtin,
    types.MethodType: lambda to, value: ("method", to.form(value.__func__), to.form(value.__self__)),
    types.CodeType: lambda to, value: code_objects.form(value),
    functools.partial: lambda to, value: ("partial", *map(to.form, (value.func, value.args, value.keywords))),
    _LRU: lambda to, value: ("cached", to.form(value.__wrapped__)),
    staticmethod: lambda to, value: ("static", to.form(value.__func__)),
    classmethod: lambda to, value: ("of class", to.form(value.__func__)),
    property: lambda to, value: ("property", *map(to.form, (value.fget, value.fset, value.fdel))),
    re.Pattern: lambda to, value: ("pattern", to.form(value.pattern), value.flags),
}
_DICTS = [getattr(sys.modules["collections"], name) for name in ("OrderedDict", "defaultdict", "Counter")]
_EXACT.update(dict.fromkeys(_DICTS, Snapshot._items))
_CHANGING = frozenset({_LRU, dict, list, set, deque, bytearray, types.SimpleNamespace, types.MappingProxyType, *_DICTS})
