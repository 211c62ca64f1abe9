"""Run the SDK's tests on every Python that the SDK promises to run on; two at a time.

An interpreter that is not here is named; with ``CI=true`` that is a failure.
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
WITH_PROCESSES = {"3.8", "3.13"}  # the worker's process journeys, on the oldest and the newest
PACKAGES = ["pytest", "hypothesis"]


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
    if not (folder / ".ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (folder / ".ready").touch()
    return folder / "bin" / "python"


def test(version: str) -> tuple[str, int, str]:
    python = interpreter(version)
    if python is None:
        return version, 1 if os.environ.get("CI") == "true" else 0, "skipped: this Python is not on the machine"
    folders = ["tests/sdk", "tests/wire", *(["tests/worker"] if version in WITH_PROCESSES else [])]
    # The conftest of all tests needs Django, which the SDK does not.
    options = ["-c", "client_sdk/pytest.ini", "--rootdir=.", "--confcutdir=tests/sdk"]
    command = [str(environment(version, python)), "-m", "pytest", *options, *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    return version, done.returncode, lines[-1] if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-2000:]


def main() -> int:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(test, VERSIONS))
    for version, code, words in results:
        print(f"Python {version}: {'' if code == 0 else 'FAILED: '}{words}")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
