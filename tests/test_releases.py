"""What a release says of itself (one version, the licence, the Pythons), what its files hold, and what it installs."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import perfect_client
from packaging.requirements import Requirement

import perfect_site
from tests.interpreters import VERSIONS

ROOT = Path(__file__).resolve().parents[1]
SDK = ROOT / "client_sdk"
PROJECT = tomllib.loads((SDK / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED: dict[str, list[str]] = {}
for _name, _version in re.findall(r"^([\w.-]+)==([^ ;]+)", LOCK, re.M):
    LOCKED.setdefault(_name, []).append(_version)


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.tar.gz" if kind == "sdist" else "*.whl"))


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert perfect_site.__version__ == perfect_client.__version__
    assert f'"{perfect_client.__version__}"' not in (ROOT / "perfect_site" / "__init__.py").read_text()


def test_the_newest_release_in_the_changelog_is_this_version():
    releases = re.findall(r"^## (\d+\.\d+\.\d+)\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[0] == perfect_client.__version__


def test_the_sdk_has_the_licence_of_the_project():
    assert (SDK / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_sdk_names_the_pythons_on_which_it_is_tested():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tuple(named) == VERSIONS


def test_a_wheel_is_built_from_what_the_source_distribution_holds(tmp_path):
    with tarfile.open(build("sdist", SDK, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"perfect_client-{perfect_client.__version__}"
    wheel = zipfile.ZipFile(build("wheel", unpacked, tmp_path))

    info = f"perfect_client-{perfect_client.__version__}.dist-info"
    assert {"perfect_client/__init__.py", "perfect_client/py.typed", f"{info}/licenses/LICENSE"} <= set(
        wheel.namelist()
    )
    assert "License-Expression: MIT" in wheel.read(f"{info}/METADATA").decode()
    assert "../" not in (unpacked / "pyproject.toml").read_text()


def test_the_lock_has_a_version_in_the_range_of_each_requirement():
    files = ("requirements.txt", "requirements-build.txt", "examples/requirements.txt")
    lines = [line.split("#")[0].strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("-")]

    def is_locked(need: Requirement) -> bool:
        return any(version in need.specifier for version in LOCKED.get(_plain(need.name), ()))

    assert wanted and all(is_locked(need) for need in wanted), "make lock"


def test_each_locked_file_is_checked_and_none_is_bound_to_a_place():
    entries = re.split(r"^(?=\w)", LOCK, flags=re.M)[1:]

    assert not [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry]
    assert "://" not in LOCK and "--index" not in LOCK and "--find-links" not in LOCK


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
