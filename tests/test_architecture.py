"""ARCHITECTURE.md is the map, and the map is true. `lint-imports` keeps who may import whom; here stands the rest."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = {"perfect_client": ROOT / "client_sdk", "flows": ROOT, "runs": ROOT, "perfect_site": ROOT}
ROW = re.compile(r"^\| `([a-z_/]+)/` \| (.+?) \|$", re.M)
MOST_MODULES = 20  # in a folder: what can be held in one's head
LEAST_TOLD = {"migrations", "management", "commands", "templatetags"}  # Django's own names say what they hold
IMPURE = {"socket", "ssl", "asyncio", "threading", "time", "subprocess", "django", "selectors", "sqlite3"}
# Who alone may import what: each concern has one home.
SOLE = {
    "croniter": {"flows.schedules"},
    "channels.layers": set(),
    "jsonschema": {"flows.handwritten"},
    "prometheus_client": {"perfect_site.server.health"},
}
# What the SDK uses where it is installed, and never needs.
IF_INSTALLED = {
    "perfect_client.console.display": {"rich"},
    "perfect_client.engine.dask": {"dask", "distributed"},
    "perfect_client.engine.pickling": {"cloudpickle"},
}


def modules_on_disk() -> dict[str, Path]:
    found = {}
    for package, folder in ROOTS.items():
        for path in (folder / package).rglob("*.py"):
            if "migrations" not in path.parts:
                name = ".".join(path.relative_to(folder).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules_on_disk()
PURE = [
    *(
        name
        for name in MODULES
        if name.startswith("perfect_client.schema.") and name != "perfect_client.schema.secrets"
    ),
    *(f"perfect_client.wire.{name}" for name in ("messages", "artifact_content", "frames", "session")),
    *("flows.schedules", "runs.rules.states", "runs.rules.learning", "runs.rules.progress", "runs.rules.artifacts"),
]
MAP = dict(ROW.findall((ROOT / "ARCHITECTURE.md").read_text()))
FOLDERS = {
    path.parent.relative_to(ROOTS[name.split(".")[0]]).as_posix(): path
    for name, path in MODULES.items()
    if path.name == "__init__.py" and not LEAST_TOLD & set(path.parts)
}


def imports_of(module: str) -> set[str]:
    """What a module imports at run time: of ``from a import b`` both ``a`` and ``a.b``."""
    tree = ast.parse(MODULES[module].read_text())
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def docstring_of(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def test_the_map_names_every_folder_with_what_its_package_says_of_itself():
    assert {folder: docstring_of(path) for folder, path in FOLDERS.items()} == MAP


def test_every_module_says_what_it_is_for():
    silent = [name for name, path in MODULES.items() if not docstring_of(path) and path.read_text().strip()]
    assert silent == []


def test_no_folder_holds_more_than_can_be_held_in_ones_head():
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name[0] != "_")
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("perfect_client")])
def test_the_sdk_imports_only_python_itself(module):
    others = {name.split(".")[0] for name in imports_of(module)} - {"perfect_client", "__future__"}
    assert others <= set(sys.stdlib_module_names) | {"typing_extensions"} | IF_INSTALLED.get(module, set())


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_touches_no_clock_no_socket_and_no_database(module):
    assert not {name.split(".")[0] for name in imports_of(module)} & IMPURE


@pytest.mark.parametrize("library", SOLE)
def test_each_concern_has_one_home(library):
    assert {name for name in MODULES if library in imports_of(name)} <= SOLE[library]


@pytest.mark.parametrize("module", MODULES)
def test_no_import_hides_inside_a_function_but_what_is_heavy_and_says_so(module):
    source = MODULES[module].read_text()
    tree, lines = ast.parse(source), source.splitlines()
    hidden = [
        f"{module}:{inner.lineno}"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
        if isinstance(inner, ast.Import | ast.ImportFrom) and "# heavy" not in lines[inner.lineno - 1]
    ]
    assert not hidden


def test_a_state_is_written_in_one_place():
    writers = {
        name
        for name, path in MODULES.items()
        if name.startswith(("flows", "runs")) and re.search(r"\.update\([^)]*\bstate=", path.read_text())
    }
    assert writers <= {"runs.models", "runs.services.closing"}  # closing closes task runs, which have no table of moves


def test_the_environment_is_read_in_one_place():
    readers = {
        name
        for name, path in MODULES.items()
        if not name.startswith("perfect_client") and re.search(r"os\.environ\b", path.read_text())
    }
    commands = {
        "perfect_site.management.commands.serve",
        "perfect_site.management.commands.runworker",
    }  # what their children inherit
    assert readers <= commands | {
        f"perfect_site.{name}" for name in ("settings", "env", "checks", "asgi", "server.local")
    }


QUESTIONS = re.findall(
    r"^\| ([A-Z][^|]+\?) \| `([^`]+)` \| `([^`]+)` \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M
)


def test_the_map_answers_ten_questions():
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize(("question", "file", "symbol"), QUESTIONS, ids=[question for question, _, _ in QUESTIONS])
def test_the_file_that_answers_a_question_has_what_the_map_says(question, file, symbol):
    assert re.search(rf"\b{symbol}\b", (ROOT / file).read_text()), question


@pytest.mark.parametrize(
    "document", [ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs" / "design").glob("*.md"))], ids=str
)
def test_the_files_and_modules_that_a_document_names_are_there(document):
    named = re.findall(
        r"`((?:perfect_site|runs|flows|core|engine|worker|execution|journal|dashboard)/[\w/]+\.py)",
        document.read_text(),
    )
    roots = (ROOT, ROOT / "client_sdk", ROOT / "client_sdk" / "perfect_client", ROOT / "perfect_site")
    assert [file for file in named if not any((root / file).exists() for root in roots)] == []


def test_the_map_is_read_in_fifteen_minutes():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 250
