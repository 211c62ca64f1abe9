"""ARCHITECTURE.md is the map, and the map is true: it names every module, imports only go up the page."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = {"perfect_client": ROOT / "client_sdk", "flows": ROOT, "runs": ROOT, "perfect_site": ROOT}
ROW = re.compile(r"^\| `([a-z_.0-9]+)` \| (.+?) \|$", re.M)
FLOOR = re.compile(r"^### (.+)$", re.M)
# Pure, each.
WIRE_FLOOR = ("protocol", "masking", "redaction", "wording", "fitting", "contents")
SERVER_MAY_USE = {f"perfect_client.{name}" for name in WIRE_FLOOR}
PURE = {*SERVER_MAY_USE, "perfect_client.cuts", "perfect_client.spellings", "perfect_client.values",
        "perfect_client.frames", "perfect_client.session", "flows.schedules", "runs.states", "runs.learning",
        "runs.progress", "runs.showing"}  # fmt: skip
IMPURE = {"socket", "ssl", "asyncio", "threading", "time", "subprocess", "django", "selectors", "sqlite3"}
# Who alone may import what: each concern has one home.
SOLE = {"croniter": {"flows.schedules"}, "channels.layers": set(), "jsonschema": {"flows.handwritten"},
        "prometheus_client": {"perfect_site.health"}}  # fmt: skip
# What the SDK uses where it is installed, and never needs.
IF_INSTALLED = {"perfect_client.display": {"rich"}, "perfect_client.dask": {"dask", "distributed"},
                "perfect_client.shipping": {"cloudpickle"}}  # fmt: skip
SERVER_EXCEPTIONS = {"runs.management.commands.runworker": {"perfect_client", "perfect_client.cli"},
                     "perfect_site": {"perfect_client"}}  # fmt: skip  # the version


def path_of(module: str) -> Path:
    base = ROOTS[module.split(".")[0]] / Path(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def modules_on_disk() -> set[str]:
    found = set()
    for package, folder in ROOTS.items():
        for path in (folder / package).rglob("*.py"):
            if "migrations" in path.parts or (path.name == "__init__.py" and not path.read_text().strip()):
                continue
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found.add(name.removesuffix(".__init__"))
    return found


MAP = dict(ROW.findall((ROOT / "ARCHITECTURE.md").read_text()))
ORDER = {module: position for position, module in enumerate(MAP)}


def type_checking_only(tree: ast.Module) -> set[ast.AST]:
    """Imports that only a type checker sees bind nothing at run time."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {inner for block in blocks for inner in ast.walk(block)}


def imports_of(module: str) -> set[str]:
    """Every module that this one imports, in-house names resolved to modules of the map."""
    tree = ast.parse(path_of(module).read_text())
    unseen = type_checking_only(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in ORDER else base)
    return found


def test_the_map_names_every_module_and_nothing_else():
    assert set(MAP) == modules_on_disk()


@pytest.mark.parametrize("module", MAP)
def test_a_modules_sentence_is_its_docstrings_first(module):
    docstring = ast.get_docstring(ast.parse(path_of(module).read_text())) or ""
    assert MAP[module] == " ".join(docstring.split("\n\n")[0].split()), module


@pytest.mark.parametrize("module", MAP)
def test_imports_only_go_up_the_page(module):
    below = {name for name in imports_of(module) if name in ORDER and ORDER[name] > ORDER[module]}
    assert not below, f"{module} imports what stands below it: {below}"


@pytest.mark.parametrize("module", [m for m in MAP if not m.startswith("perfect_client")])
def test_the_server_knows_only_the_wire_floor_of_the_sdk(module):
    used = {name for name in imports_of(module) if name.split(".")[0] == "perfect_client"}
    assert used <= SERVER_MAY_USE | SERVER_EXCEPTIONS.get(module, set())


@pytest.mark.parametrize("module", [m for m in MAP if m.startswith("perfect_client")])
def test_the_sdk_imports_only_python_itself(module):
    others = {name.split(".")[0] for name in imports_of(module)} - {"perfect_client", "__future__"}
    assert others <= set(sys.stdlib_module_names) | {"typing_extensions"} | IF_INSTALLED.get(module, set())


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_touches_no_clock_no_socket_and_no_database(module):
    assert not {name.split(".")[0] for name in imports_of(module)} & IMPURE


@pytest.mark.parametrize("library", SOLE)
def test_each_concern_has_one_home(library):
    users = {m for m in MAP if any(name == library or name.startswith(library + ".") for name in imports_of(m))}
    assert users <= SOLE[library]


@pytest.mark.parametrize("module", MAP)
def test_no_import_hides_inside_a_function_but_what_is_heavy_and_says_so(module):
    source = path_of(module).read_text()
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
        module
        for module in MAP
        if module.startswith(("flows", "runs")) and re.search(r"\.update\([^)]*\bstate=", path_of(module).read_text())
    }
    assert writers <= {"runs.models", "runs.closing"}  # closing closes task runs, which have no table of moves


def test_the_environment_is_read_in_one_place():
    readers = {
        m for m in MAP if not m.startswith("perfect_client") and re.search(r"os\.environ\b", path_of(m).read_text())
    }
    commands = {"runs.management.commands.serve", "runs.management.commands.runworker"}  # what their children inherit
    assert readers <= commands | {f"perfect_site.{name}" for name in ("settings", "env", "checks", "asgi", "local")}
