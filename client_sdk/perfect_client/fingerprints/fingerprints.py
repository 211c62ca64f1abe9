"""What a task's code is, with all of the user's own code that it names: one digest, and a short one for each part.

From the function the walk goes on to what its compiled code names: functions, classes and values of own modules, what
it closes over, its defaults. Nearest first, each once, at most ``MAX_PARTS``. What is not the user's own counts by its
name alone. The digest depends on nothing that differs between processes: no address, path, line, or order of imports.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
import types
from hashlib import blake2b
from importlib.machinery import SourceFileLoader
from operator import is_
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union
from weakref import WeakKeyDictionary

from perfect_client.fingerprints import code_objects, references, user_code
from perfect_client.fingerprints.snapshots import ABSENT, LookedUp, Snapshot, dict_of

SIZE = 16  # bytes
MAX_PARTS = 1000  # functions, classes and globals of one task; those that are farther away do not count
_MAX_AHEAD = 200  # tasks of one module
_MAX_REMEMBERED = 20_000
_STARTED = time.time_ns()  # a file that is younger may not be what was imported
_PYTHON, _VERSION = "the version of Python", "%d.%d" % sys.version_info[:2]  # each compiles code in its own way
# Attributes of classes with two underscores that are data and decide what the class does.
_TELLING = frozenset({"__dataclass_fields__", "__pydantic_fields__", "__fields__", "__attrs_attrs__", "__slots__"})

logger = logging.getLogger("perfect_client.results")


class Fingerprint(NamedTuple):
    """``parts``: the version of Python, and a digest in hexadecimal for each ``file:name``.

    ``bound``: what tells apart the functions that one factory makes: the values, not the code, that they close over;
    empty for all others.
    """

    digest: bytes
    parts: Dict[str, str]
    bound: bytes


class _Root(NamedTuple):
    """What a task decorates."""

    value: Any


class _Part(NamedTuple):
    """A function, class, global or file: its own digest, and what it leads to. ``is_fixed``: it is the same as long as
    its names stand for the same."""

    node: Any  # kept alive, so that nothing else can get the same identity
    label: str
    digest: bytes
    refs: Sequence[Any]
    looked_up: Sequence[LookedUp]
    is_fixed: bool

    def is_current(self, node: Any) -> bool:
        """False where a name stands for something else by now: in a notebook, or after a module was loaded again."""
        if type(node) is references.Global and node.value is not self.node.value:
            return False
        return all(space.get(name, ABSENT) is value for space, name, value in self.looked_up)


class _Walk(NamedTuple):
    """What the walk from a function has found."""

    fingerprint: Fingerprint
    parts: List[_Part]


class _Ahead:
    """The fingerprint of a function whose parts are all fixed, made before the function was to run."""

    def __init__(self, fn: types.FunctionType, walk: _Walk) -> None:
        self._fn = fn  # kept alive, so that nothing else can get the same identity
        self._fingerprint: Optional[Fingerprint] = walk.fingerprint
        self._parts = walk.parts
        self._functions = [
            (part.node, _made_of(part.node)) for part in walk.parts if type(part.node) is types.FunctionType
        ]

    def settle(self) -> Optional[Fingerprint]:
        """None if a name stood for something else, or a function was another one, when this was asked first."""
        names = all(part.is_current(part.node) for part in self._parts)
        if not names or not all(all(map(is_, _made_of(fn), then)) for fn, then in self._functions):
            self._fingerprint = None
        self._parts, self._functions = [], []
        return self._fingerprint


def _made_of(fn: types.FunctionType) -> Tuple[Any, ...]:
    """What a function can be given anew."""
    return fn.__code__, fn.__defaults__, fn.__kwdefaults__, fn.__dict__.get("__wrapped__")


_Node = Union[types.FunctionType, type, references.Global, _Root, user_code.OwnModule]
_remembered: Dict[Any, _Part] = {}
_made_before: WeakKeyDictionary[types.FunctionType, Fingerprint] = WeakKeyDictionary()
_ahead: Dict[int, _Ahead] = {}  # by the identity of the function
_seen: Dict[int, Dict[str, Any]] = {}  # the modules whose tasks have all been looked at


def fingerprint_of(task: Any) -> Fingerprint:
    """The fingerprint of a task or flow, made once. Never raises: what cannot be read is like nothing else.

    With a task's, those of all tasks of its module are made: before one of them can change the module's globals.
    """
    known: Dict[str, Any] = task.__dict__
    if "_fingerprint" not in known:
        known["_fingerprint"] = _once(task.fn)
        _make_all(getattr(task.fn, "__globals__", {}))
    found: Fingerprint = known["_fingerprint"]
    return found


def _once(fn: Any) -> Fingerprint:
    """``with_options`` makes other tasks of the same function; what it closes over may have changed by then."""
    if type(fn) is not types.FunctionType:
        return of_function(fn)
    ahead = _ahead.get(id(fn))
    found = ahead.settle() if ahead is not None else None
    if found is not None:
        return found
    if fn not in _made_before:
        _made_before[fn] = of_function(fn)
    return _made_before[fn]


def _make_all(space: Dict[str, Any]) -> None:
    if id(space) not in _seen:
        _seen[id(space)] = space
        for task in _tasks_in(space):
            if "_fingerprint" not in task.__dict__:
                task.__dict__["_fingerprint"] = _once(task.fn)


def _tasks_in(space: Dict[str, Any]) -> List[Any]:
    ours = [value for value in list(space.values()) if type(value).__module__ == "perfect_client.engine.decorators"]
    return [task for task in ours[:_MAX_AHEAD] if type(task).__name__ == "Task"]


def read_ahead(flows: Iterable[Any]) -> None:
    """Make the fingerprints of all tasks beside these flows, so that runs are spared it. One that depends on a value
    which can change in itself is made again when a task is called: until then, what it was at the import is not kept.
    """
    spaces = [getattr(flow.fn, "__globals__", {}) for flow in flows]
    for space in {id(each): each for each in spaces}.values():
        for fn in [task.fn for task in _tasks_in(space)]:
            walk = _walk_from(fn)
            if walk is not None and type(fn) is types.FunctionType and all(part.is_fixed for part in walk.parts):
                _ahead[id(fn)] = _Ahead(fn, walk)
    _remembered.clear()


def of_function(fn: Any) -> Fingerprint:
    """The same of anything that can be called."""
    walk = _walk_from(fn)
    return Fingerprint(os.urandom(SIZE), {}, b"") if walk is None else walk.fingerprint


def _walk_from(fn: Any) -> Optional[_Walk]:
    """None, with a note, where the code cannot be read."""
    try:
        package = user_code.package_of(_file_of(fn))
        with user_code.own_package(package):
            return _walk(_Root(fn), package)
    except Exception as wrong:  # it may be anything
        logger.debug("the code of %s cannot be read: %s: %s", type(fn).__name__, type(wrong).__name__, wrong)
        return None


def _file_of(fn: Any) -> str:
    """The file of what a decorator, a partial or a method stands for."""
    for _ in range(100):
        known = dict_of(fn)
        if "__wrapped__" in known:
            fn = known["__wrapped__"]
        elif type(fn) in (functools.partial, types.MethodType):
            fn = fn.func if type(fn) is functools.partial else fn.__func__
        else:
            break
    if type(fn) is types.FunctionType:
        return fn.__code__.co_filename
    return references.file_of(dict_of(sys.modules.get(type(fn).__module__)))


def _walk(root: _Root, package: str) -> _Walk:
    queue: List[Any] = [root]
    met: List[_Part] = []
    numbers = {_key(root): 0}
    whole = blake2b(digest_size=SIZE)
    parts: Dict[str, Any] = {}
    for node in queue:  # it grows
        part = _part(node, package)
        met.append(part)
        edges = []
        for ref in part.refs:
            key = _key(ref)
            if key not in numbers and len(queue) < MAX_PARTS:
                numbers[key] = len(queue)
                queue.append(ref)
            edges.append(numbers.get(key, -1))
        whole.update(part.digest + repr(edges).encode())
        if part.label:
            parts.setdefault(part.label, blake2b(digest_size=6)).update(part.digest)
    known = {label: made.hexdigest() for label, made in parts.items()}
    return _Walk(Fingerprint(whole.digest(), {_PYTHON: _VERSION, **known}, _bound(root.value)), met)


def _key(node: Any) -> Any:
    if type(node) is references.Global:
        return id(node.space), node.name
    return node if type(node) is user_code.OwnModule else id(node)


def _part(node: Any, package: str) -> _Part:
    key = _key(node), package
    found = _remembered.get(key)
    if found is None or not found.is_current(node):
        make: Callable[[Any], _Part] = _PARTS.get(type(node), _of_class)
        found = make(node)
        if _lasts(node):
            if len(_remembered) > _MAX_REMEMBERED:
                _remembered.clear()
            _remembered[key] = found
    return found


def _lasts(node: Any) -> bool:
    """Whether it stays what it is as long as the process lives; nested functions are made by each call anew."""
    if type(node) is _Root:
        return False
    return type(node) in (references.Global, user_code.OwnModule) or "<locals>" not in node.__qualname__


def _made(node: Any, label: str, form: Any, snapshot: Snapshot, is_fixed: bool = False) -> _Part:
    return _Part(node, label, _digest(form), snapshot.refs, snapshot.looked_up, is_fixed and snapshot.is_fixed)


def _digest(form: Any) -> bytes:
    return blake2b(repr(form).encode("utf-8", "backslashreplace"), digest_size=SIZE).digest()


# -------------------------------------------------------------------------------------------------------------- labels


def _label(file: str, name: str) -> str:
    short = os.path.basename(file)
    if short == "__init__.py":
        short = "%s/%s" % (os.path.basename(os.path.dirname(file)), short)
    return "%s:%s" % (short, name.replace("<locals>.", ""))


# ----------------------------------------------------------------------------------------------------------- functions


def _of_root(root: _Root) -> _Part:
    snapshot = Snapshot()
    return _made(root, "", snapshot.form(root.value), snapshot, is_fixed=True)


def _of_function(fn: types.FunctionType) -> _Part:
    code, space = fn.__code__, fn.__globals__
    snapshot = Snapshot(references.file_of(space))
    form = (
        code_objects.form(code),
        snapshot.form(fn.__defaults__),
        snapshot.form(fn.__kwdefaults__),
        snapshot.form(fn.__dict__.get("__wrapped__")),
        references.cells(fn, snapshot),
        references.names(code, space, snapshot),
    )
    for cls in (*references.class_around(fn), *references.classes_in(fn, space, snapshot)):
        snapshot.refer(cls)
    snapshot.refs.extend(references.imported(code, space.get("__package__")))
    file = references.file_of(space) if code.co_filename.startswith("<") else code.co_filename
    # A cell or a class can get another value, and what is imported inside may be found elsewhere by then.
    is_fixed = not fn.__closure__ and "." not in fn.__qualname__ and not code_objects.imports(code)
    return _made(fn, _label(file, fn.__qualname__), form, snapshot, is_fixed)


def _of_global(one: references.Global) -> _Part:
    snapshot = Snapshot(references.file_of(one.space))
    form = snapshot.form(one.value)
    return _made(one, _label(references.file_of(one.space), one.name), form, snapshot, is_fixed=True)


# ------------------------------------------------------------------------------------------------------------- classes


def _of_class(cls: type) -> _Part:
    space = vars(cls)
    file = references.file_of(dict_of(sys.modules.get(cls.__module__)) or {"__name__": cls.__module__})
    snapshot = Snapshot(file)
    members = [(name, snapshot.form(value)) for name, value in sorted(space.items()) if _counts(name, value)]
    bases = [snapshot.form(base) for base in cls.__mro__[1:-1]]
    hints = [_hint_text(pair) for pair in references.hints_of(cls).items()]
    form = (cls.__name__, snapshot.form(type(cls)), bases, members, hints)
    for found in references.classes_in(cls, dict_of(sys.modules.get(cls.__module__)), snapshot):
        snapshot.refer(found)
    return _made(cls, _label(file, cls.__qualname__), form, snapshot)


def _counts(name: str, value: Any) -> bool:
    """Python and libraries keep much under names with two underscores; of these, functions count."""
    if not (name.startswith("__") and name.endswith("__")):
        return name not in ("_abc_impl", "_abc_cache", "_abc_registry")
    return name in _TELLING or type(value) in (types.FunctionType, staticmethod, classmethod, property)


def _hint_text(pair: Tuple[str, Any]) -> Tuple[str, str]:
    name, hint = pair
    return name, hint if type(hint) is str else str(getattr(hint, "__qualname__", "") or type(hint).__name__)


# --------------------------------------------------------------------------------- modules that are imported on the way


def _of_file(module: user_code.OwnModule) -> _Part:
    label, snapshot = _label(module.file, ""), Snapshot()
    if os.stat(module.file).st_mtime_ns > _STARTED and module.name in sys.modules:  # it was imported from an older text
        return _made(module, label, os.urandom(SIZE), snapshot)
    code = SourceFileLoader(module.name, module.file).get_code(module.name)  # compiled already, if it was ever imported
    assert code is not None
    snapshot.refs.extend(references.imported(code, module.package))
    return _made(module, label, code_objects.form(code), snapshot)


# ------------------------------------------------------------------------------------------------ what a factory passed


def _bound(value: Any) -> bytes:
    """The values that tell apart the functions that one piece of code makes; their own code does not count."""
    fn = references.undecorated(value)
    if type(fn) is types.FunctionType and not fn.__closure__ and "<locals>" not in fn.__qualname__:
        return b""
    form = _bound_form(fn, 5)
    return b"" if form is None else _digest(form)


def _bound_form(fn: Any, depth: int) -> Any:
    snapshot = Snapshot()
    if type(fn) is types.FunctionType:
        defaults = (fn.__defaults__, fn.__kwdefaults__) if "<locals>" in fn.__qualname__ else ()
        forms = [snapshot.form(value) for value in defaults if value] + references.cells(fn, snapshot)
    else:
        forms = [snapshot.form(fn)]
    refs = [_bound_ref(ref, depth - 1) for ref in snapshot.refs] if depth else []
    return (forms, refs) if forms else None


def _bound_ref(ref: Any, depth: int) -> Any:
    """A named function is its name and what it closes over in turn; a lambda has no name, so its code counts."""
    name = str(getattr(ref, "__qualname__", type(ref).__name__))
    if type(ref) is not types.FunctionType:
        return name
    code = code_objects.form(ref.__code__) if name.endswith("<lambda>") else None
    return (name, code, _bound_form(ref, depth) if ref.__closure__ or "<locals>" in name else None)


# --------------------------------------------------------------------------------------------------------- in sentences


def changes(then: Dict[str, str], now: Dict[str, str]) -> str:
    """What is another one now, for a sentence: ``total in calc.py``; empty where nothing is known by name."""
    if then.get(_PYTHON, "") != now.get(_PYTHON, ""):
        return _PYTHON if _PYTHON in then else ""
    labels = [label for label in now if label in then and then[label] != now[label]]
    labels = labels or [label for label in (*now, *then) if (label in now) != (label in then)]
    by_file: Dict[str, List[str]] = {}
    for label in labels:
        file, _, name = label.partition(":")
        by_file.setdefault(file, []).append(name)
    told = [_told(file, [name for name in names if name]) for file, names in by_file.items()]
    return _listed(told[:3] + (["%d more" % (len(told) - 3)] if len(told) > 3 else []))


def is_one(changed: str) -> bool:
    """Whether the words of ``changes`` are about one thing."""
    return " and " not in changed


def _told(file: str, names: List[str]) -> str:
    if len(names) > 3:
        names = [*names[:3], "%d more" % (len(names) - 3)]
    return "%s in %s" % (_listed(names), file) if names else file


def _listed(words: List[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_PARTS: Dict[type, Callable[[Any], _Part]] = {
    types.FunctionType: _of_function,
    references.Global: _of_global,
    _Root: _of_root,
    user_code.OwnModule: _of_file,
}
