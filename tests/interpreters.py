"""Run the SDK's tests on every Python that the SDK promises to run on; ``--others``: not on this one.

An interpreter that is not here is named; with ``CI=true`` that is a failure. Where a test draws examples it draws few:
many were tried on the interpreter that runs all tests, and what depends on the version shows in the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
ENDS = {"3.8", "3.13"}  # the wire and the worker's processes are tried on the oldest and the newest alone
PACKAGES = ["pytest", "pytest-xdist", "hypothesis"]
FEW = "--hypothesis-profile=few"  # registered by tests/sdk
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")  # tests with processes mostly wait
AT_ONCE = 3  # two that compute, and one of those with processes
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def interpreter(version: str) -> str | None:
    """A Python of this version: on the PATH, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"))
    if found:
        return str(found[-1])
    python = shutil.which(f"python{version}")
    works = python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    return python if works else None


def environment(version: str, python: str) -> Path:
    folder = ROOT / ".venvs" / version
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text().split() != PACKAGES:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        ready.write_text(" ".join(PACKAGES))
    return folder / "bin" / "python"


Result = tuple[int, str]  # an exit code, and words


def test(python: Path, *what: str) -> Result:
    # The conftest of all tests needs Django, which the SDK does not.
    options = ["-c", "client_sdk/pytest.ini", "--rootdir=.", "--confcutdir=tests/sdk"]
    command = [str(python), "-m", "pytest", *options, *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    return done.returncode, lines[-1] if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-2000:]


def missing(version: str) -> Result:
    return int(os.environ.get("CI") == "true"), f"skipped: Python {version} is not on the machine"


def main() -> int:
    versions = [version for version in VERSIONS if version != THIS or "--others" not in sys.argv]
    found = {version: interpreter(version) for version in versions}
    results = [(version, *missing(version)) for version, python in found.items() if python is None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pythons = dict(zip(found, pool.map(lambda item: item[1] and environment(*item), found.items())))
        there = {version: python for version, python in pythons.items() if python}
        # The libraries are not installed there.
        processes = ["tests/worker", "--ignore=tests/worker/test_libraries.py", *SIDE_BY_SIDE]
        jobs = [(version, pool.submit(test, there[version], *processes)) for version in ENDS & set(there)]
        jobs += [
            (version, pool.submit(test, python, "tests/sdk", *(["tests/wire"] if version in ENDS else []), FEW))
            for version, python in there.items()
        ]
        results += [(version, *job.result()) for version, job in jobs]
    for version, code, words in sorted(results, key=lambda result: VERSIONS.index(result[0])):
        print(f"Python {version}: {'' if code == 0 else 'FAILED: '}{words}")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
