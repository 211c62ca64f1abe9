"""How the modules of the user are imported: each folder has its own, and it is known which statement left something.

A flow file is run as ``python file.py`` would run it: ``import helpers`` finds the helpers beside it, whatever module
of that name another folder has. While a *watch* is kept, each statement of a module's top level says where it stands,
so that a connection or a thread that is left behind can be told by file and line.
"""

from __future__ import annotations

import ast
import builtins
import io
import linecache
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from perfect_client.errors import PACKAGE
from perfect_client.loading.leftovers import Left, Process, of_call
from perfect_client.loading.process_state import ProcessState
from perfect_client.loading.sources import FOREIGN

_MARK = "__perfect_statement__"
_SEED, _FOLDER = "a seed for random numbers", "a temporary folder or file that forks would share"
_NAME = "an id that forks would share"
_ONCE = {  # what each run is to have of its own, by the function that is called for it
    **dict.fromkeys(("seed", "manual_seed", "set_seed", "set_random_seed", "seed_everything"), _SEED),
    **dict.fromkeys(("Random", "RandomState", "default_rng"), _SEED),  # two forks would draw the same numbers
    **dict.fromkeys(("mkdtemp", "mkstemp", "mktemp", "TemporaryDirectory", "NamedTemporaryFile"), _FOLDER),
    **dict.fromkeys(("uuid1", "uuid4", "token_hex", "token_urlsafe", "token_bytes", "getpid"), _NAME),
}
_MAX_FILE_NAME = 255
_MAX_DATA_FILES = 1000
_HERE = os.path.realpath(PACKAGE) + os.sep
_SYSTEM = (
    os.path.realpath(sys.prefix) + os.sep,
    os.path.realpath(sys.base_prefix) + os.sep,
    "/proc/",
    "/sys/",
    "/dev/",
    "/usr/",
    "/etc/",
)

Whereabouts = Tuple[str, ...]  # the file of a module, or the folders of one that has no ``__init__.py``


class Statement(NamedTuple):
    """A statement of a module's top level: its line (0: it is not known which one), the package from elsewhere that it
    imports, and what it makes that each run is to have of its own."""

    line: int
    imports: str = ""
    makes: str = ""


class Trace(NamedTuple):
    """What a statement of one of the user's modules left behind."""

    file: str
    statement: Statement
    left: Left


class _Place:
    """A module whose top level is being executed, and the statement it has come to."""

    def __init__(self, module: str, file: str) -> None:
        self.module, self.file, self.statement = module, file, Statement(1)


class Watch:
    """What the imports leave behind, by the statement that did it; which modules a module imports; which files are
    read."""

    def __init__(self) -> None:
        self.process, self.state = Process(), ProcessState()
        self.traces: List[Trace] = []
        self.imports: Dict[str, Set[str]] = {}  # file → names that its code imports, wherever that stands
        self.names: Dict[str, str] = {}  # file → name of its module
        self.data_files: Set[str] = set()
        self._places: List[_Place] = []
        self._open: Any = None

    def begin(self) -> None:
        self.process.listen()
        self._open = builtins.open
        builtins.open = io.open = _Opening(self._open, self.read)  # type: ignore[assignment]

    def end(self) -> None:
        builtins.open = io.open = self._open  # type: ignore[assignment]
        self.process.rest()

    def enter(self, module: str, file: str) -> None:
        self.look()
        self._note_state()
        self._places.append(_Place(module, file))
        self.names[file] = module

    def leave(self) -> None:
        self.look()
        self._places[-1].statement = Statement(0)
        self.look(thorough=True)
        self._note_state()
        self._places.pop()

    def at(self, statement: Statement) -> None:
        """The innermost module comes to this statement."""
        self.look()
        place = self._places[-1]
        if statement.imports or place.statement.imports:
            self._note_state()
        place.statement = statement
        if statement.makes:
            self.traces.append(Trace(place.file, statement, of_call(statement.makes)))

    def _note_state(self) -> None:
        """What changed in the state of this process is the innermost module's, unless it imports a package just now."""
        place = self._places[-1] if self._places else _Place("", "")
        self.state.note("" if place.statement.imports else place.file)

    def look(self, thorough: bool = False) -> None:
        """Note what is new as left by the statement that the innermost module has come to."""
        for left in self.process.news(thorough):
            place = self._places[-1] if self._places else _Place("", "")
            self.traces.append(Trace(place.file, place.statement, left))

    def read(self, file: Any) -> None:
        """Note a file that was opened for reading: what a module made of it is as old as the file."""
        try:
            path = os.path.realpath(os.fsdecode(file))
        except (TypeError, ValueError):
            return
        if path.startswith(_SYSTEM) or path.endswith((".py", ".pyc")) or len(self.data_files) >= _MAX_DATA_FILES:
            return
        if os.path.isfile(path):
            self.data_files.add(path)


class _Opening:
    """Stands in for ``open``; an object, since a function would become a method where a class keeps it."""

    def __init__(self, real: Callable[..., Any], read: Callable[[Any], None]) -> None:
        self._real, self._read = real, read

    def __call__(self, file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        opened = self._real(file, mode, *args, **kwargs)
        if isinstance(mode, str) and not set(mode) & set("wax+"):
            self._read(file)
        return opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class OwnModules:
    """Finds and loads them. ``kept``, by real path, are sources that count instead of what the files hold now."""

    def __init__(
        self, folders: Sequence[str] = (), kept: Optional[Mapping[str, bytes]] = None, watch: Optional[Watch] = None
    ) -> None:
        self.kept, self.watch = dict(kept or {}), watch
        self.sources: Dict[str, bytes] = {}  # all that were loaded, as they were
        self.tried: Set[str] = set()  # their files, those included that failed
        self._folders = [os.path.realpath(folder) for folder in folders]
        self._roots: Set[str] = set(self._folders)
        self._root = self._added = ""
        self._entered = ("", "")
        self._aside: Dict[str, Dict[Whereabouts, Dict[str, ModuleType]]] = {}  # top name → its versions
        self._found: Dict[Tuple[str, str, str], Whereabouts] = {}  # root, beside, top name → what ``import`` finds

    def install(self) -> None:
        """Be asked before Python's own search of ``sys.path``, after built-in modules."""
        known: List[Any] = sys.meta_path
        known.insert(known.index(PathFinder) if PathFinder in known else len(known), self)
        for folder in reversed(self._folders):
            if folder not in sys.path:
                sys.path.insert(0, folder)

    # ------------------------------------------------------------------------------------------------------- folders

    def enter(self, root: str, beside: str = "") -> None:
        """From here on ``import x`` looks into ``root`` first and into ``beside`` last, and finds no ``x`` of another
        folder in its place."""
        if (root, beside) == self._entered:
            return
        loaded = self._loaded()
        if self._added and self._added in sys.path:
            sys.path.remove(self._added)
        if self._root and self._root not in self._folders and self._root in sys.path:
            sys.path.remove(self._root)
        self._root, self._entered, self._added = root, (root, beside), ""
        self._roots.update({root, beside} - {""})
        if root in sys.path:
            sys.path.remove(root)
        sys.path.insert(0, root)
        if beside and beside not in sys.path:
            sys.path.append(beside)
            self._added = beside
        self._swap(loaded)

    def _loaded(self) -> Dict[str, Whereabouts]:
        """The user's top-level modules, and where they come from. To be asked before the search path changes, which
        folders without ``__init__.py`` follow by themselves."""
        loaded: Dict[str, Whereabouts] = {}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            top = name.partition(".")[0]
            if top in loaded or top == "__main__" or not isinstance(file, str):
                continue
            if os.path.realpath(file) in self.tried:
                owner = sys.modules.get(top)
                own_file = getattr(owner, "__file__", None)
                loaded[top] = _whereabouts(own_file, getattr(owner, "__path__", ()))
        return loaded

    def _swap(self, loaded: Mapping[str, Whereabouts]) -> None:
        """Take modules out of the way for which ``import`` would find others now, and put back those that it would
        find."""
        for name in {*loaded, *self._aside}:
            found = self._search(name)
            if name in loaded and found and found != loaded[name]:
                inside = [one for one in sys.modules if one == name or one.startswith(name + ".")]
                self._aside.setdefault(name, {})[loaded[name]] = {one: sys.modules.pop(one) for one in inside}
            if name not in sys.modules:
                sys.modules.update(self._aside.get(name, {}).pop(found, {}))

    def _search(self, name: str) -> Whereabouts:
        key = (*self._entered, name)
        if key not in self._found:
            spec = PathFinder.find_spec(name)
            self._found[key] = _whereabouts(spec.origin, spec.submodule_search_locations or ()) if spec else ()
        return self._found[key]

    def is_own(self, file: str) -> bool:
        """Whether a file is the user's: below one of the folders, and not of an installed package."""
        return (
            file.endswith(".py")
            and not file.startswith(_HERE)
            and any(
                file.startswith(root.rstrip(os.sep) + os.sep) and not FOREIGN & set(file[len(root) :].split(os.sep))
                for root in self._roots
            )
        )

    # -------------------------------------------------------------------------------------------------------- finding

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, target: Any = None) -> Optional[ModuleSpec]:
        found = self._kept_spec(name, sys.path if path is None else path) if self.kept else None
        if found is None:
            found = PathFinder.find_spec(name, path, target)
            if found is None or not found.origin or not isinstance(found.loader, SourceFileLoader):
                return None if found is None or found.loader is not None else found
            file = os.path.realpath(found.origin)
            if self.is_own(file):
                found.loader = OwnLoader(name, found.origin, self)
        return found

    def _kept_spec(self, name: str, folders: Iterable[str]) -> Optional[ModuleSpec]:
        """Of a module that was kept, though its file may be gone."""
        for folder in folders:
            base = os.path.realpath(os.path.join(folder or os.getcwd(), name.rpartition(".")[2]))
            for file, inside in ((os.path.join(base, "__init__.py"), [base]), (base + ".py", None)):
                if file in self.kept:
                    return spec_from_file_location(
                        name, file, loader=OwnLoader(name, file, self), submodule_search_locations=inside
                    )
        return None

    def spec_of(self, name: str, file: str) -> Optional[ModuleSpec]:
        """The spec of a file that is imported under this name."""
        return spec_from_file_location(name, file, loader=OwnLoader(name, file, self))

    def source(self, path: str) -> bytes:
        """The source of a module. Raises ``OSError``."""
        real = os.path.realpath(path)
        self.tried.add(real)
        source = self.kept.get(real)
        if source is None:
            with io.FileIO(path) as file:
                source = file.readall()
        self.sources[real] = source
        lines = source.decode("utf-8", "replace").splitlines(True)
        linecache.cache[path] = (len(source), None, lines, path)  # the file may change while this code still runs
        return source


class OwnLoader(SourceFileLoader):
    """Loads one of the user's modules."""

    def __init__(self, fullname: str, path: str, owner: OwnModules) -> None:
        super().__init__(fullname, path)
        self._owner = owner
        self._statements: List[Statement] = []

    def get_data(self, path: str) -> bytes:  # type: ignore[override]
        return self._owner.source(path) if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> Optional[CodeType]:
        """Always from the source: compiled files know nothing of statements, nor of sources that were kept."""
        source = self.get_data(self.path)
        if self._owner.watch is None:
            return self.source_to_code(source, self.path)  # type: ignore[no-any-return]
        tree: Any = compile(source, self.path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        self._owner.watch.imports[os.path.realpath(self.path)] = _imported_names(tree, self._package(fullname))
        self._statements = _mark(tree, self._owner, self.path)
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code

    def _package(self, name: str) -> str:
        return name if os.path.basename(self.path) == "__init__.py" else name.rpartition(".")[0]

    def exec_module(self, module: ModuleType) -> None:
        watch = self._owner.watch
        if watch is None:
            return super().exec_module(module)
        watch.enter(module.__name__, os.path.realpath(self.path))
        try:
            code = self.get_code(module.__name__)
            module.__dict__[_MARK] = lambda number: watch.at(self._statements[number])
            exec(code, module.__dict__)  # type: ignore[arg-type]
        finally:
            module.__dict__.pop(_MARK, None)
            watch.leave()


def _whereabouts(file: Any, folders: Iterable[str]) -> Whereabouts:
    return (os.path.realpath(file),) if isinstance(file, str) else tuple(map(os.path.realpath, folders))


def _has_module(folder: str, name: str) -> bool:
    base = os.path.join(folder, name)
    return os.path.isfile(base + ".py") or os.path.isfile(os.path.join(base, "__init__.py"))


# --------------------------------------------------------------------------------------------------------- statements


def _mark(tree: Any, owner: OwnModules, path: str) -> List[Statement]:
    """Let each statement of a module's top level say that it comes; functions are only defined, and say nothing."""
    statements: List[Statement] = []
    body: List[ast.stmt] = []
    for node in tree.body:
        if not _must_come_first(node, body) and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body.append(_call_of_mark(len(statements), node))
            statements.append(_statement(node, owner, path))
        body.append(node)
    tree.body = body
    return statements


def _must_come_first(node: ast.stmt, before: List[ast.stmt]) -> bool:
    """A docstring, and ``from __future__ import …``."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    return not before and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _call_of_mark(number: int, node: ast.stmt) -> ast.stmt:
    call = ast.Call(ast.Name(_MARK, ast.Load()), [ast.Constant(number)], [])
    return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))


def _statement(node: ast.stmt, owner: OwnModules, path: str) -> Statement:
    parts = [] if _is_main_guard(node) else list(ast.walk(node))
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and owner.watch is not None:
            _note_file(part.value, os.path.dirname(path), owner.watch)
    called = (part.func for part in parts if isinstance(part, ast.Call))
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in called}
    makes = [_ONCE[name] for name in sorted(names & _ONCE.keys())] if _runs_now(node) else []
    return Statement(node.lineno, _imported_from_elsewhere(node, owner), makes[0] if makes else "")


def _runs_now(node: ast.stmt) -> bool:
    """Whether the calls in a statement are made when it is executed: not those in methods and lambdas."""
    return not isinstance(node, ast.ClassDef) and not any(isinstance(part, ast.Lambda) for part in ast.walk(node))


def _is_main_guard(node: ast.stmt) -> bool:
    """``if __name__ == "__main__":``, which a worker does not enter."""
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _note_file(text: str, folder: str, watch: Watch) -> None:
    """A text that names a file: libraries in other languages open files without ``open``."""
    if 0 < len(text) <= _MAX_FILE_NAME and "\0" not in text and "\n" not in text:
        for path in (text, os.path.join(folder, text)):
            if os.path.isfile(path):
                watch.read(path)


def _imported_from_elsewhere(node: ast.stmt, owner: OwnModules) -> str:
    """The package that the statement imports, if it is none of the user's modules."""
    if isinstance(node, ast.Import):
        name = node.names[0].name
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        name = node.module
    else:
        return ""
    top = name.partition(".")[0]
    return "" if any(_has_module(folder, top) for folder in owner._roots) else top


def _imported_names(tree: Any, package: str) -> Set[str]:
    """All names that the code imports, at whatever depth; ``from a import b`` may mean the module ``a.b``."""
    found: Set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, parts), *([node.module] if node.module else [])])
            found.update([base, *("%s.%s" % (base, alias.name) for alias in node.names)])
    return found
