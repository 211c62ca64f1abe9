"""Which files are the user's own, and how their modules are found without an import."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import perfect_client
import pytest
from perfect_client.fingerprints import user_code


def test_own_are_files_that_nobody_else_brought() -> None:
    assert user_code.is_own(__file__) and user_code.is_own("<stdin>") and user_code.is_own("flows.py")
    for file in (json.__file__, perfect_client.__file__, pytest.__file__, "<frozen importlib._bootstrap>"):
        assert not user_code.is_own(file)


def test_an_installed_package_is_own_where_it_is_told_to_be() -> None:
    package = "/env/lib/python3.8/site-packages/flows/"
    for file, found in (
        (package + "a.py", package),
        (package + "sub/a.py", package),
        ("/env/lib/python3.8/site-packages/lone.py", "/env/lib/python3.8/site-packages/lone.py"),
        ("/home/ana/flows.py", ""),
        (perfect_client.__file__, ""),
    ):
        assert user_code.package_of(file) == found

    with user_code.own_package(package):
        assert user_code.is_own(package + "a.py")
        assert not user_code.is_own("/env/lib/python3.8/site-packages/other/a.py")
    assert not user_code.is_own(package + "a.py")


def test_own_modules() -> None:
    assert user_code.is_own_module(sys.modules[__name__])
    for module in (sys, json, pytest, perfect_client):
        assert not user_code.is_own_module(module)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("lone.py", "outer/__init__.py", "outer/inner/__init__.py", "outer/inner/leaf.py", "spaced/leaf.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "package"),
    [
        ("lone", "lone.py", ""),
        ("outer", "outer/__init__.py", "outer"),
        ("outer.inner", "outer/inner/__init__.py", "outer.inner"),
        ("outer.inner.leaf", "outer/inner/leaf.py", "outer.inner"),
        ("spaced.leaf", "spaced/leaf.py", "spaced"),
    ],
)
def test_a_module_is_found_without_being_imported(packages: Path, name: str, file: str, package: str) -> None:
    assert user_code.find(name) == user_code.OwnModule(name, str(packages / file), package)
    assert name not in sys.modules


@pytest.mark.parametrize(
    "name", ["json", "sys", "pytest", "perfect_client.flow", "outer.missing", "lone.leaf", "spaced"]
)
def test_what_is_not_an_own_source_file_is_not_found(packages: Path, name: str) -> None:
    assert user_code.find(name) is None


def test_relative_names() -> None:
    assert user_code.absolute("calc", 0, "pkg") == "calc"
    assert user_code.absolute("calc", 1, "pkg") == "pkg.calc"
    assert user_code.absolute("", 1, "pkg.sub") == "pkg.sub"
    assert user_code.absolute("calc", 2, "pkg.sub") == "pkg.calc"
    assert user_code.absolute("calc", 3, "pkg.sub") == ""
