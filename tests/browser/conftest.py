"""A real Chromium beside a real server and worker. What the browser complains about fails the test.

One house and one browser serve all of these tests, so a test looks only at runs that it has started itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.journeys.checker import faults
from tests.journeys.house import House, opened, until
from tests.needs import missing

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 780}
WATCH_PERCENT = """() => {
  window.stayed = true; window.seen = [];
  const look = () => {
    const found = /(\\d+) %/.exec(document.querySelector(".hero [data-pct]")?.textContent || "");
    if (found && Number(found[1]) !== window.seen.at(-1)) window.seen.push(Number(found[1]));
  };
  look();
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if playwright is None:
        missing("no Playwright here: pip install playwright")
    if not Path(CHROMIUM).exists():
        missing("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def house(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house
        end_all(house)
        assert faults(house.database, house.ledger) == []


def end_all(house: House) -> None:
    """Nothing is left running when the house closes, whichever test failed."""
    open_states = ("PENDING", "SCHEDULED", "RUNNING")
    for state in open_states:
        for run in house.get(f"/api/runs?state={state}&limit=100")["items"]:
            house.request("POST", f"/api/runs/{run['id']}/cancel", {})
            house.wait(run["id"], within=15)


def sign_in_link(house: House) -> str:
    found = re.search(r"http://\S+/welcome/\?t=\S+", house.manage("loginurl").stdout)
    assert found
    return found.group(0)


@pytest.fixture(scope="session")
def administrator(house: House, chromium: Any) -> Any:
    """Signed in once, by the link; every page starts from these cookies."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(sign_in_link(house))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"http://127.0.0.1:{house.port}/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture(scope="session")
def people(house: House) -> Any:
    """A viewer with a password, made as an operator would make one."""
    made = house.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import Group, User\n"
        "viewer = User.objects.create_user('vera', password='vera-sees-all-of-it')\n"
        "viewer.groups.add(Group.objects.get(name='viewer'))",
    )
    assert made.returncode == 0, made.stderr
    return {"viewer": ("vera", "vera-sees-all-of-it")}


class Complaints:
    """What the browser says is wrong with the pages of one context: console, scripts, policy, requests."""

    def __init__(self, context: Any) -> None:
        self.found: list[str] = []
        self.expected: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.found.append(f"script: {error.error}"))
        context.on("requestfailed", self._failed)
        context.on("response", self._response)

    def expect(self, *words: str) -> None:
        """Complaints with one of these words are part of the journey."""
        self.expected += words

    def unexpected(self) -> list[str]:
        return [said for said in self.found if not any(word in said for word in self.expected)]

    def _console(self, message: Any) -> None:
        # Leaving a page whose socket is still opening is no fault of the page.
        if message.type in ("error", "warning") and "before the connection is established" not in message.text:
            self.found.append(f"console: {message.text}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # a page that is left takes back what it asked for
            self.found.append(f"failed: {request.url}: {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.found.append(f"{response.status}: {urlsplit(response.url).path}")


@pytest.fixture
def new_page(house: House, chromium: Any) -> Iterator[Callable[..., Any]]:
    """``new_page(viewport=…)`` is a page in a context of its own, about which the browser must have no complaint."""
    opened_here: list[Any] = []

    def make(**options: Any) -> Any:
        options = {"viewport": DESK, "color_scheme": "dark", **options}
        context = chromium.new_context(base_url=f"http://127.0.0.1:{house.port}", **options)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.complaints = Complaints(context)
        opened_here.append(page)
        return page

    yield make
    complaints = [said for page in opened_here for said in page.complaints.unexpected()]
    for page in opened_here:
        page.context.close()
    assert complaints == []


@pytest.fixture
def page(new_page: Callable[..., Any], administrator: Any) -> Any:
    return new_page(storage_state=administrator)


def step(house: House, gate: str, number: int) -> None:
    """Let the run that climbs behind ``gate`` go on after this step."""
    house.gate.with_name(f"{gate}-{number}").touch()


def started(house: House, flow: str, **wish: Any) -> str:
    run_id = house.trigger(flow, **wish)
    house.wait(run_id, "RUNNING")
    return run_id


def says(page: Any, selector: str, text: str, within: float = 15) -> None:
    """Until the element says so, without a reload."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)",
        arg=[selector, text],
        timeout=within * 1000,
    )


def newest(house: House, flow: str, but: frozenset[str] = frozenset()) -> str:
    """The id of the flow's newest run that is none of these."""

    def there() -> str | None:
        runs = house.get(f"/api/runs?flow={flow}&limit=5")["items"]
        return next((run["id"] for run in runs if run["id"] not in but), None)

    return until(there, what=f"a run of {flow}")
