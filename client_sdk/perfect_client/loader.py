"""Import what a worker is pointed at and collect the flows in it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from perfect_client.decorators import Flow
from perfect_client.errors import function_place
from perfect_client.failures import error_text

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_HAS_FLOW = re.compile(rb"@\s*[\w.]*flow\b|\bflow\s*\(", re.IGNORECASE)
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORTLIB = os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep


class Loaded(NamedTuple):
    """The flows found, and a sentence for each thing that is wrong."""

    flows: List[Flow[Any, Any]]
    problems: List[str]


def load(target: str) -> Loaded:
    """Load a file, a folder (recursively, files in which a flow is made) or a dotted module. Never raises."""
    return load_all([target])


def load_all(targets: Sequence[str]) -> Loaded:
    """Load several targets; two functions that claim one flow name are a problem, and the first one stays."""
    flows: Dict[str, Flow[Any, Any]] = {}
    problems: List[str] = []
    for target in targets:
        for found in _load_one(target, problems):
            known = flows.setdefault(found.name, found)
            if known.identity != found.identity:
                places = function_place(known.fn), function_place(found.fn)
                problems.append("Two flows are named %r: %s and %s; the first one is used." % (found.name, *places))
    return Loaded(list(flows.values()), problems)


def _load_one(target: str, problems: List[str]) -> List[Flow[Any, Any]]:
    path = Path(target).expanduser()
    if target.strip() and path.is_dir():
        return _load_folder(path.resolve(), problems)
    if path.is_file():
        module = _import_file(path.resolve(), problems)
        flows = _flows_in(module) if module is not None else []
        if module is not None and not flows:
            problems.append("%s has no flow: decorate a function with @flow." % path)
        return flows
    if os.sep in target or target.endswith(".py") or not all(part.isidentifier() for part in target.split(".")):
        problems.append("There is no file or folder %r." % target)
        return []
    return _load_dotted(target, problems)


# ---------------------------------------------------------------------------------------------------------- folders


def _load_folder(folder: Path, problems: List[str]) -> List[Flow[Any, Any]]:
    before = len(problems)
    flows: List[Flow[Any, Any]] = []
    for file in _files_with_flows(folder, problems):
        module = _import_file(file, problems)
        if module is not None:
            flows.extend(_defined_in(module))
    if not flows and len(problems) == before:
        problems.append("The folder %s has no Python file with a flow." % folder)
    return flows


def _files_with_flows(folder: Path, problems: List[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(str(folder)):
        folders[:] = sorted(name for name in folders if not _is_skipped(os.path.join(place, name), name))
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("."):
                file = Path(place, name)
                try:
                    source = file.read_bytes()
                except OSError as wrong:
                    problems.append("%s cannot be read: %s." % (file, wrong.strerror or wrong))
                    continue
                if b"perfect_client" in source and _HAS_FLOW.search(source):
                    yield file


def _is_skipped(path: str, name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED_FOLDERS or os.path.exists(os.path.join(path, "pyvenv.cfg"))


# ---------------------------------------------------------------------------------------------------------- modules


def _load_dotted(name: str, problems: List[str]) -> List[Flow[Any, Any]]:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _guarded(name, lambda: importlib.import_module(name), problems)
    if module is None:
        return []
    folder = Path(module.__file__).parent if hasattr(module, "__path__") and module.__file__ else None
    flows = [flow for flow in _flows_in(module) if (flow.__module__ + ".").startswith(name + ".")]
    if folder is not None:
        flows.extend(_load_folder(folder.resolve(), [] if flows else problems))
    elif not flows:
        problems.append("The module %s has no flow: decorate a function with @flow." % name)
    return flows


def _import_file(file: Path, problems: List[str]) -> Optional[ModuleType]:
    """The module of a file: by its dotted name inside a package, else by its own name with its folder importable."""
    root, parts = file.parent, [] if file.stem == "__init__" else [file.stem]
    while (root / "__init__.py").exists() and root.parent != root:
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = ".".join(parts)
    loaded = sys.modules.get(name)
    if loaded is not None and _file_of(loaded) == str(file):
        return loaded
    if len(parts) > 1:
        return _guarded(str(file), lambda: importlib.import_module(name), problems)
    if loaded is not None or not name.isidentifier() or name in sys.builtin_module_names:
        name = "%s_%s" % (re.sub(r"\W", "_", name), hashlib.sha1(str(file).encode()).hexdigest()[:8])
        loaded = sys.modules.get(name)
    return loaded or _guarded(str(file), lambda: _execute_file(name, file), problems)


def _file_of(module: ModuleType) -> Optional[str]:
    file = getattr(module, "__file__", None)
    return os.path.realpath(file) if file else None


def _execute_file(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, str(file))
    if spec is None or spec.loader is None:
        raise ImportError("this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _guarded(what: str, importing: Any, problems: List[str]) -> Optional[ModuleType]:
    try:
        module: ModuleType = importing()
        return module
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script without a main guard may call sys.exit()
        problems.append("%s does not import: %s" % (_place(error) or what, error_text(error)))
        return None


def _place(error: BaseException) -> str:
    """``file:line`` of the deepest line of the user's code, or of the syntax error."""
    if isinstance(error, SyntaxError) and error.filename:
        return "%s:%d" % (error.filename, error.lineno or 1)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((_HERE, _IMPORTLIB, "<frozen"))]
    return "%s:%d" % (own[-1].filename, own[-1].lineno or 1) if own else ""


# ------------------------------------------------------------------------------------------------------------ flows


def _flows_in(module: ModuleType) -> List[Flow[Any, Any]]:
    found = [value for value in list(vars(module).values()) if isinstance(value, Flow)]
    return list({id(flow): flow for flow in found}.values())


def _defined_in(module: ModuleType) -> List[Flow[Any, Any]]:
    return [flow for flow in _flows_in(module) if flow.__module__ == module.__name__]
