"""The documentation is true: the code of each page is run as a program, and prints what the page says it prints."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import List, NamedTuple, Tuple

import pytest
from perfect_client import cli

from tests.sdk.terminals import piped

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*sorted(DOCS.rglob("*.md")), ROOT / "client_sdk" / "README.md"]
    if path.parent != DOCS / "project"
}
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_BETWEEN = "\x1e"  # printed after each block


class Block(NamedTuple):
    code: str
    prints: str  # empty: anything


def blocks_of(page: str) -> List[Block]:
    """The Python of a page; what is printed stands right below."""
    found: List[Tuple[str, str]] = _FENCE.findall(page)
    following = [*found[1:], ("", "")]
    return [
        Block(text, said if kind == "text" else "")
        for (language, text), (kind, said) in zip(found, following)
        if language == "python"
    ]


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks_of(text)])
def test_the_code_of_a_page_runs_and_prints_what_is_said(page: str, tmp_path: Path) -> None:
    blocks = blocks_of(PAGES[page])
    if find_spec("distributed") is None:
        blocks = [block for block in blocks if "DaskTaskRunner(" not in block.code]
    path = tmp_path / "guide.py"
    path.write_text(("print(%r)\n" % _BETWEEN).join([block.code for block in blocks] + [""]), encoding="utf-8")
    serves = any("serve()" in block.code for block in blocks)  # as a program it would become a worker
    start = ["-c", "import runpy, sys; runpy.run_path(sys.argv[1], run_name='guide')", str(path)]

    out, err, code = piped(
        *(start if serves else [str(path)]), PERFECT_CONSOLE="0", PERFECT_HOME=str(tmp_path / "home")
    )

    assert code == 0, err
    for block, printed in zip(blocks, out.split(_BETWEEN + "\n")):
        wanted = ".*".join(map(re.escape, block.prints.split("…")))
        assert not block.prints or re.fullmatch(wanted, printed), printed


@pytest.mark.parametrize("line", re.findall(r"^\$ (.+)$", "\n".join(PAGES.values()), re.M))
def test_each_command_is_one_that_exists(line: str) -> None:
    words = shlex.split(line)
    if words[:2] == ["pip", "install"]:
        name, extra = re.fullmatch(r"([\w-]+)(?:\[(\w+)\])?", words[2]).groups()  # type: ignore[union-attr]
        project = (ROOT / "client_sdk" / "pyproject.toml").read_text(encoding="utf-8")
        assert 'name = "%s"' % name in project
        assert extra is None or re.search(r"^%s = \[" % extra, project, re.M)
        return
    command = words[words.index("manage.py") + 1] if "manage.py" in words else "worker"
    if command in ("worker", "runworker"):
        import argparse

        parser = argparse.ArgumentParser()
        cli.add_arguments(parser)
        parser.parse_args(words[words.index(command) + 1 :])
    else:
        folder = ROOT / "perfect_site" / "management" / "commands"
        assert command + ".py" in os.listdir(str(folder))


def test_every_name_of_the_package_is_in_the_documentation() -> None:
    import perfect_client

    text = "\n".join(PAGES.values())
    assert not [name for name in perfect_client.__all__ if not re.search(r"\b%s\b" % name, text)]
