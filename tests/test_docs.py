"""What exists is in the documents: a setting, command, state, message or address that they do not name is a failure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands
from perfect_client.wire import messages

from perfect_site import env
from runs.rules.states import RunState

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMANDS = (DOCS / "reference" / "commands.md").read_text()
SETTINGS = (DOCS / "reference" / "settings.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if not path.is_symlink()]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]


@pytest.mark.parametrize("name", sorted(env.KNOWN - {"PERFECT_RUN"}))  # the mark that a run's processes inherit
def test_every_setting_is_in_the_reference(name):
    assert f"`{name}`" in SETTINGS


@pytest.mark.parametrize("command", sorted(name for name, app in get_commands().items() if app == "perfect_site"))
def test_every_command_is_in_the_reference(command):
    assert f"`manage.py {command}" in COMMANDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_names_is_one(document):
    named = set(re.findall(r"manage\.py ([a-z]+)", document.read_text()))
    assert named <= set(get_commands())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_target_that_a_document_names_is_in_the_makefile(document):
    named = set(re.findall(r"`make ([a-z-]+)", document.read_text()))
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("message", sorted(messages.TYPES))
def test_every_message_is_in_the_chapter_on_delivery(message):
    assert f"`{message}`" in (ROOT / "docs" / "design" / "delivery.md").read_text()


@pytest.mark.parametrize("state", RunState)
def test_every_state_is_in_the_architecture(state):
    assert state in ARCHITECTURE


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_documents_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


def test_each_dependency_has_its_reason():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = [re.split(r"[\[<>=!~;]", line)[0].strip() for line in lines if line and not line.startswith(("#", "-"))]
    missing = [name for name in names if f"**{name}**" not in ARCHITECTURE]
    assert names and not missing


def test_each_dependency_is_bounded():
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "examples" / "requirements.txt").read_text()
    loose = [line for line in text.splitlines() if line and not line.startswith(("#", "-")) and "<" not in line]
    assert not loose


def test_each_test_that_a_promise_names_is_there():
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", (DOCS / "reliability.md").read_text())
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in _text_of(ROOT / path)]
    assert len(named) > 30 and not missing


def test_the_site_is_built_without_a_broken_link_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    loads = re.compile(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["'](?:https?:)?//|url\(["']?(?:https?:)?//""")
    built = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".css")]
    assert len(built) > len(PAGES)
    assert not [path.name for path in built if loads.search(path.read_text())]


def _text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""
