"""A real Chromium beside a real server and worker. What the browser complains about fails the test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.checker import faults
from tests.journeys.house import House, opened

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def missing(reason: str) -> None:
    """A browser that is not here skips the journey and says so; with CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house
        assert faults(house.database, house.ledger) == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    if not Path(CHROMIUM).exists():
        missing("no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


def sign_in_link(house: House) -> str:
    found = re.search(r"http://\S+/welcome/\?t=\S+", house.manage("loginurl").stdout)
    assert found
    return found.group(0)


@pytest.fixture(scope="module")
def cookies(house: House, chromium) -> object:
    """Signed in once, by the link; every page of the module starts from it."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(sign_in_link(house))
    page.locator("form button").click()
    page.wait_for_url(f"http://127.0.0.1:{house.port}/")
    state = context.storage_state()
    context.close()
    return state


def serious(message) -> bool:
    """An error or warning, but for leaving a page whose socket is still opening."""
    return message.type in ("error", "warning") and "closed before the connection is established" not in message.text


@pytest.fixture
def page(house: House, chromium, cookies) -> Iterator[object]:
    context = chromium.new_context(
        viewport={"width": 1440, "height": 900}, storage_state=cookies, base_url=f"http://127.0.0.1:{house.port}"
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if serious(m) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.complaints = complaints
    yield page
    context.close()
    assert not complaints
