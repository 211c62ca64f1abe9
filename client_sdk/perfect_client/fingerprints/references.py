"""What the names in an own function stand for: what its compiled code takes from modules, cells, hints and imports."""

from __future__ import annotations

import re
import types
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

from perfect_client.fingerprints import code_objects, user_code
from perfect_client.fingerprints.snapshots import ABSENT, Snapshot, dict_of, is_own_class

_OF_EVERY_MODULE = frozenset(
    {
        "__name__",
        "__file__",
        "__doc__",
        "__package__",
        "__spec__",
        "__loader__",
        "__path__",
        "__cached__",
        "__builtins__",
        "__annotations__",
        "__debug__",
    }
)
_WORD = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


class Global(NamedTuple):
    """A value under a name of an own module."""

    space: Dict[str, Any]
    name: str
    value: Any


def file_of(space: Dict[str, Any]) -> str:
    file = space.get("__file__")
    return file if isinstance(file, str) else "<%s>" % space.get("__name__")


# -------------------------------------------------------------------------------------------------------------- values


def cells(fn: types.FunctionType, snapshot: Snapshot) -> List[Any]:
    return [_cell(cell, snapshot) for cell in fn.__closure__ or ()]


def _cell(cell: Any, snapshot: Snapshot) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # nothing was assigned yet
        return "empty"
    if issubclass(type(value), types.ModuleType):
        return _attributes(value, snapshot)
    return snapshot.form(value)


def names(code: types.CodeType, space: Dict[str, Any], snapshot: Snapshot) -> Any:
    """What the names of the code stand for in its module."""
    found = []
    for chain in code_objects.chains(code):
        if chain[0] not in space:
            snapshot.looked_up.append((space, chain[0], ABSENT))
        elif chain[0] not in _OF_EVERY_MODULE:
            found.append((chain, _named(chain, space, snapshot)))
    return found


def _named(chain: code_objects.Chain, space: Dict[str, Any], snapshot: Snapshot) -> Any:
    for name in chain:
        if name not in space:
            snapshot.looked_up.append((space, name, ABSENT))
            return "absent"
        value = space[name]
        snapshot.looked_up.append((space, name, value))
        if not issubclass(type(value), types.ModuleType):
            return _value(value, name, space, snapshot)
        if not user_code.is_own_module(value):
            return snapshot.form(value)
        space = vars(value)
    return _attributes(value, snapshot)


def _attributes(module: types.ModuleType, snapshot: Snapshot) -> Any:
    """A module that the code has as a value: it may take from it whatever the module has."""
    if not user_code.is_own_module(module):
        return snapshot.form(module)
    space, snapshot.is_fixed = vars(module), False
    named = sorted(name for name in space if not (name.startswith("__") and name.endswith("__")))
    values = [(name, space[name]) for name in named if not issubclass(type(space[name]), types.ModuleType)]
    return [(name, _value(value, name, space, snapshot)) for name, value in values]


def _value(value: Any, name: str, space: Dict[str, Any], snapshot: Snapshot) -> Any:
    """A global: own functions and classes are parts by themselves, all others are under their name."""
    target = undecorated(value)
    if target is not value:
        snapshot.looked_up.append((dict_of(value), "fn", target))
    is_part = _is_own_function(target) or (issubclass(type(target), type) and is_own_class(target))
    return snapshot.refer(target if is_part else Global(space, name, value))


def _is_own_function(value: Any) -> bool:
    return type(value) is types.FunctionType and user_code.is_own(value.__code__.co_filename)


def undecorated(value: Any) -> Any:
    """The function of a task or a flow."""
    is_ours = type(value).__module__ == "perfect_client.engine.decorators"
    return dict_of(value).get("fn", value) if is_ours else value


# --------------------------------------------------------------------------------------------------- classes and files


def class_around(fn: types.FunctionType) -> Iterator[type]:
    """The class of a method: through ``self`` it may call all others."""
    found: Any = fn.__globals__
    *path, _ = fn.__qualname__.split(".")
    for name in path:
        found = found.get(name) if type(found) is dict else vars(found).get(name)
        if not isinstance(found, type):
            return
    if path and is_own_class(found):
        yield found


def classes_in(annotated: Any, space: Dict[str, Any], snapshot: Snapshot) -> Iterator[type]:
    """The own classes that hints name: their methods are called on what is passed."""
    for hint in hints_of(annotated).values():
        for found in _hinted(hint, space, snapshot, 5):
            if is_own_class(found):
                yield found


def hints_of(annotated: Any) -> Dict[str, Any]:
    """The hints of a function, or those that a class itself has; none that would have to be worked out first."""
    try:
        found = vars(annotated).get("__annotations__") if isinstance(annotated, type) else annotated.__annotations__
    except Exception:  # a name in them is not there (3.14 and newer)
        return {}
    return found if type(found) is dict else {}


def _hinted(hint: Any, space: Dict[str, Any], snapshot: Snapshot, depth: int) -> Iterator[type]:
    if isinstance(hint, str):
        for word in _WORD.findall(hint):
            yield from _hinted_by(word.split("."), space, snapshot)
    elif issubclass(type(hint), type):
        yield hint
    if depth and type(hint).__module__ in ("typing", "types", "collections.abc"):
        for inner in getattr(hint, "__args__", None) or ():
            yield from _hinted(inner, space, snapshot, depth - 1)
    if type(hint).__name__ == "ForwardRef":
        yield from _hinted(hint.__forward_arg__, space, snapshot, 0)


def _hinted_by(path: Sequence[str], space: Dict[str, Any], snapshot: Snapshot) -> Iterator[type]:
    found: Any = None
    for name in path:
        found = space.get(name, ABSENT)
        snapshot.looked_up.append((space, name, found))
        if issubclass(type(found), type):
            yield found
        if not issubclass(type(found), types.ModuleType):
            return
        space = vars(found)


def imported(code: types.CodeType, package: Any) -> Iterator[user_code.OwnModule]:
    """The own modules that the code imports itself. They may not be loaded yet, so they count as they are written."""
    for one in code_objects.imports(code):
        base = user_code.absolute(one.name, one.level, package if isinstance(package, str) else "")
        for name in (base, *("%s.%s" % (base, inner) for inner in one.names if base)):
            found = user_code.find(name) if name else None
            if found is not None:
                yield found
