"""Import what a worker is pointed at, piece by piece, and collect the flows in it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from perfect_client.core import importing
from perfect_client.core.importing import Served
from perfect_client.core.previews import error_text
from perfect_client.engine.decorated import Bound
from perfect_client.engine.decorators import Flow
from perfect_client.errors import PACKAGE, function_place
from perfect_client.loading.importer import OwnModules
from perfect_client.loading.sources import FILE, FOREIGN, MEMBER, MODULE, SCRIPT, Unit

_SKIPPED_FOLDERS = FOREIGN | {"build", "dist"}
_HAS_FLOW = re.compile(rb"@\s*[\w.]*flow\b|\bflow\s*\(", re.IGNORECASE)
_IMPORTLIB = os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep

_MAX_LISTED = 1000  # flows in one list


class Loaded(NamedTuple):
    """The flows found, and a sentence for each thing that is wrong."""

    flows: List[Flow[Any, Any]]
    problems: List[str]


class Imported(NamedTuple):
    """A unit after its import; ``problem`` is a sentence where it failed."""

    unit: Unit
    flows: List[Flow[Any, Any]]
    problem: str


def load(target: str) -> Loaded:
    """Load a file, a folder (recursively, files in which a flow is made) or a dotted module. Never raises."""
    return load_all([target])


def load_all(targets: Sequence[str]) -> Loaded:
    """Load several targets; two functions that claim one flow name are a problem, and the first one stays."""
    flows: Dict[str, Flow[Any, Any]] = {}
    loader = Loader(OwnModules())
    for imported in loader.load(targets):
        for found in imported.flows:
            known = flows.setdefault(found.name, found)
            if known.identity != found.identity:
                loader.problems.append(same_name(known, found))
    return Loaded(list(flows.values()), loader.problems)


def same_name(first: Flow[Any, Any], second: Flow[Any, Any]) -> str:
    """The sentence about two functions that claim one flow name."""
    places = function_place(first.fn), function_place(second.fn)
    return "Two flows are named %r: %s and %s; the first one is used." % (first.name, *places)


def folders_of(unit: Unit) -> Tuple[str, str]:
    """The folder whose modules a unit's ``import`` statements find first, as if it was run as a script, and the one
    that they find last: that of a file in a package, which is imported from above."""
    if unit.kind == MODULE:
        return os.getcwd(), ""
    file = Path(unit.name)
    root = _in_package(file)[0]
    return str(root), "" if root == file.parent else str(file.parent)


class Loader:
    """Loads targets. ``problems`` has a sentence for each thing that is wrong."""

    def __init__(self, modules: OwnModules, skip: Sequence[Unit] = ()) -> None:
        self.modules = modules
        self.problems: List[str] = []
        self._skip = frozenset(skip)

    def load(
        self, targets: Sequence[str], begin: Callable[[Unit], None] = lambda unit: None, script: str = ""
    ) -> Iterator[Imported]:
        """Import the units of the targets, one a step. ``begin`` is called before each."""
        done: Set[Unit] = set()
        scripts = [(script, iter([Unit(SCRIPT, script)]))] if script else []
        for target, units in [*scripts, *((target, self._units(target)) for target in targets)]:
            before, found = len(self.problems), False
            for unit in units:
                if unit in done or unit in self._skip:
                    found = True
                    continue
                done.add(unit)
                begin(unit)
                imported = self.load_unit(unit)
                found = found or bool(imported.flows)
                yield imported
            if not found and len(self.problems) == before:
                self.problems.append(_no_flow_in(target))

    def load_unit(self, unit: Unit) -> Imported:
        """Import one unit."""
        before = len(self.problems)
        self.modules.enter(*folders_of(unit))
        sys.argv = [unit.name]  # as ``python file.py`` has it: what imports make of arguments is theirs
        if unit.kind == MODULE:
            module = self._guarded(unit.name, lambda: importlib.import_module(unit.name))
        elif unit.kind == SCRIPT:
            module = self._guarded(unit.name, lambda: self._execute_script(Path(unit.name)))
        else:
            module = self._import_file(Path(unit.name))
        flows = _flows_of(unit, module) if module is not None else []
        return Imported(unit, flows, "; ".join(self.problems[before:]))

    def _execute_script(self, file: Path) -> ModuleType:
        """Execute it as Python executes a script, up to the call of ``serve``."""
        before = sys.modules.get("__main__")
        try:
            with contextlib.suppress(Served):
                self._execute_file("__main__", file)
        except BaseException:
            sys.modules["__main__"] = before  # type: ignore[assignment]
            raise
        return sys.modules["__main__"]

    # ---------------------------------------------------------------------------------------------------------- units

    def _units(self, target: str) -> Iterator[Unit]:
        path = Path(target).expanduser()
        if target.strip() and path.is_dir():
            yield from self._units_in(path.resolve())
        elif path.is_file():
            yield Unit(FILE, str(path.resolve()))
        elif os.sep in target or target.endswith(".py") or not all(p.isidentifier() for p in target.split(".")):
            self.problems.append("There is no file or folder %r." % target)
        else:
            yield Unit(MODULE, target)
            module = sys.modules.get(target)  # it has been imported by now
            if module is not None and hasattr(module, "__path__") and module.__file__:
                yield from self._units_in(Path(module.__file__).parent.resolve())

    def _units_in(self, folder: Path) -> Iterator[Unit]:
        for place, folders, files in os.walk(str(folder)):
            folders[:] = sorted(name for name in folders if not _is_skipped(os.path.join(place, name), name))
            for name in sorted(files):
                if name.endswith(".py") and not name.startswith("."):
                    file = Path(place, name)
                    if self._may_have_flow(file):
                        yield Unit(MEMBER, str(file))

    def _may_have_flow(self, file: Path) -> bool:
        try:
            source = file.read_bytes()
        except OSError as wrong:
            self.problems.append("%s cannot be read: %s." % (file, wrong.strerror or wrong))
            return False
        return b"perfect_client" in source and _HAS_FLOW.search(source) is not None

    # -------------------------------------------------------------------------------------------------------- modules

    def _import_file(self, file: Path) -> Optional[ModuleType]:
        """The module of a file: by its dotted name inside a package, else by its own name."""
        _, parts = _in_package(file)
        name = ".".join(parts)
        loaded = sys.modules.get(name)
        if loaded is not None and _file_of(loaded) == str(file):
            return loaded
        if len(parts) > 1:
            return self._guarded(str(file), lambda: importlib.import_module(name))
        if loaded is not None or not name.isidentifier() or name in sys.builtin_module_names:
            name = "%s_%s" % (re.sub(r"\W", "_", name), hashlib.sha1(str(file).encode()).hexdigest()[:8])
            loaded = sys.modules.get(name)
        return loaded or self._guarded(str(file), lambda: self._execute_file(name, file))

    def _execute_file(self, name: str, file: Path) -> ModuleType:
        spec = self.modules.spec_of(name, str(file))
        if spec is None or spec.loader is None:
            raise ImportError("this is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Served:
            raise
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module

    def _guarded(self, what: str, importing: Callable[[], ModuleType]) -> Optional[ModuleType]:
        try:
            return importing()
        except KeyboardInterrupt:  # a cancel, too
            raise
        except BaseException as error:  # SystemExit too: a script without a main guard may call sys.exit()
            hidden = _hidden_module(error, os.path.dirname(what))
            self.problems.append("%s does not import: %s%s" % (_place(error) or what, error_text(error), hidden))
            return None


def _in_package(file: Path) -> Tuple[Path, List[str]]:
    """The folder from which a file is imported, and the parts of its dotted name there."""
    root, parts = file.parent, [] if file.stem == "__init__" else [file.stem]
    while (root / "__init__.py").exists() and root.parent != root:
        parts.insert(0, root.name)
        root = root.parent
    return root, parts


def _no_flow_in(target: str) -> str:
    path = Path(target).expanduser()
    if path.is_dir():
        return "The folder %s has no Python file with a flow." % path.resolve()
    if path.is_file():
        return "%s has no flow: decorate a function with @flow." % path
    return "The module %s has no flow: decorate a function with @flow." % target


def _is_skipped(path: str, name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED_FOLDERS or os.path.exists(os.path.join(path, "pyvenv.cfg"))


def _file_of(module: ModuleType) -> Optional[str]:
    file = getattr(module, "__file__", None)
    return os.path.realpath(file) if file else None


def _hidden_module(error: BaseException, folder: str) -> str:
    """What to do about a file beside the flow that has the name of a module of Python itself, which is loaded."""
    name = error.name if isinstance(error, ImportError) else getattr(getattr(error, "obj", None), "__name__", "")
    path = os.path.join(folder, "%s.py" % name)
    known = _file_of(sys.modules[name]) if name in sys.modules else None
    if not os.path.isfile(path) or known in (None, os.path.realpath(path)):
        return ""
    return ". Python has a module %r of its own, and finds that: rename %s" % (name, path)


def _place(error: BaseException) -> str:
    """``file:line`` of the deepest line of the user's code, or of the syntax error."""
    if isinstance(error, SyntaxError) and error.filename:
        return "%s:%d" % (error.filename, error.lineno or 1)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((PACKAGE, _IMPORTLIB, "<frozen"))]
    return "%s:%d" % (own[-1].filename, own[-1].lineno or 1) if own else ""


# ------------------------------------------------------------------------------------------------------------ flows


def _flows_of(unit: Unit, module: ModuleType) -> List[Flow[Any, Any]]:
    served = importing.current.take_served() if importing.current is not None else []
    handed = {id(flow): flow for value in served for flow in _flows_among(value, "")}
    if unit.kind == SCRIPT:
        return list(handed.values())
    found = list({**{id(flow): flow for flow in _flows_in(module)}, **handed}.values())
    if unit.kind == FILE:
        return found
    if unit.kind == MEMBER:
        return [flow for flow in found if flow.__module__ == module.__name__ or id(flow) in handed]
    return [flow for flow in found if (flow.__module__ + ".").startswith(unit.name + ".")]


def _flows_in(module: ModuleType) -> List[Flow[Any, Any]]:
    """The flows that a module has by name, in a list, tuple or dict, or as static or class methods of its classes."""
    found: Dict[int, Flow[Any, Any]] = {}
    for value in list(vars(module).values()):
        for flow in _flows_among(value, module.__name__):
            found.setdefault(id(flow), flow)
    return list(found.values())


def _flows_among(value: Any, module: str) -> Iterator[Flow[Any, Any]]:
    if isinstance(value, Flow):
        yield value
    elif isinstance(value, (Bound, MethodType)) and isinstance(value.__func__, Flow):  # Python's own: of a classmethod
        yield bound_flow(value)
    elif isinstance(value, type) and value.__module__ == module:
        for name in list(vars(value)):
            yield from _flows_of_class(value, name)
    elif isinstance(value, (list, tuple, dict)) and not isinstance(value, type):
        for item in list(value.values() if isinstance(value, dict) else value)[:_MAX_LISTED]:
            if isinstance(item, (Flow, Bound, MethodType)):
                yield from _flows_among(item, module)


def _flows_of_class(owner: type, name: str) -> Iterator[Flow[Any, Any]]:
    """A flow that can be called without an object; a method proper needs one, which ``serve`` is given."""
    found = vars(owner)[name]
    inner = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if not isinstance(inner, Flow) or (inner is found and not inner._bind_to):
        return
    if isinstance(found, classmethod) or inner._bind_to == "classmethod":
        yield bound_flow(Bound(inner, owner))
    else:
        yield inner


def bound_flow(bound: Any) -> Flow[Any, Any]:
    """A method of an object, as a flow that needs no object any more; always the same one."""
    method: Flow[Any, Any] = bound.__func__
    known: Dict[int, Flow[Any, Any]] = method.__dict__.setdefault("_bound", {})
    made = known.get(id(bound.__self__))
    if made is None:
        made = known[id(bound.__self__)] = Flow(MethodType(method.fn, bound.__self__), **method._given)
        made.hooks, made.identity = method.hooks, id(made)
    return made
