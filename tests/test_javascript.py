"""The scripts of the pages: what is pure in them, and how a browser gets modules that belong together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.template.loader import render_to_string

from perfect_site.server import assets

from .needs import missing

ROOT = Path(__file__).resolve().parents[1]
MODULES = ROOT / "perfect_site" / "static" / "perfect" / "js"


def test_what_is_pure_does_what_it_says():
    node = shutil.which("node")
    if node is None:
        missing("no node here: apt-get install nodejs")
    tests = sorted(map(str, (ROOT / "tests" / "javascript").glob("*.test.mjs")))

    done = subprocess.run([node, "--test", *tests], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert len(tests) >= 4


def test_a_module_imports_its_neighbours_only_and_stands_in_a_folder_of_its_version():
    imports = [address for path in MODULES.glob("*.js") for address in re.findall(r'from "(.*)";', path.read_text())]
    there = {f"./{path.name}" for path in MODULES.glob("*.js")}

    assert imports and set(imports) <= there
    assert staticfiles_storage.url("perfect/js/page.js").endswith(f"/perfect/js/{assets.version_of_modules()}/page.js")


def test_a_change_in_any_module_changes_the_address_of_all(tmp_path, monkeypatch):
    folder = tmp_path / "js"
    shutil.copytree(MODULES, folder)
    monkeypatch.setattr(assets.finders, "find", lambda name: str(folder))
    before = assets.version_of_modules.__wrapped__()

    (folder / "dom.js").write_text((folder / "dom.js").read_text() + "\n")

    assert assets.version_of_modules.__wrapped__() != before


def test_what_is_being_written_keeps_its_plain_address(monkeypatch):
    monkeypatch.setattr(settings, "DEBUG", True)

    assert staticfiles_storage.url("perfect/js/page.js") == "/static/perfect/js/page.js"


@pytest.mark.parametrize("signed_in", [True, False])
def test_a_page_fetches_all_its_modules_at_once(signed_in):
    """A module that the head does not name would be fetched only when its importer has been read."""
    page = render_to_string("base.html", {"user": _User(signed_in)})

    entries = ["page.js", "live.js"] if signed_in else ["page.js"]
    preloaded = re.findall(r'rel="modulepreload" href="\S+/(\w+\.js)"', page)
    assert sorted(preloaded) == sorted(_with_imports(entries))


def _with_imports(entries: list[str]) -> set[str]:
    found: set[str] = set()
    while entries:
        found.add(entries[-1])
        entries += {*re.findall(r'from "./(\w+\.js)"', (MODULES / entries.pop()).read_text())} - found
    return found


class _User:
    """Whoever looks at a page, as far as its frame asks."""

    def __init__(self, is_authenticated: bool) -> None:
        self.is_authenticated = is_authenticated
