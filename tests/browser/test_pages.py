"""What holds on every page: it fits, it is silent, it can be used with a keyboard, with less motion, with any eyes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.house import ROOT, House, opened, until

from .conftest import DESK, PHONE, end_all, says, sign_in_link, started, step

pytestmark = pytest.mark.browser
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def runs(house: House) -> Iterator[dict[str, str]]:
    """A run in each state that has a look of its own."""
    found = {"failed": house.trigger("raises"), "crashed": house.trigger("vanishes"), "done": house.trigger("steady")}
    found["scheduled"] = house.trigger("steady", run_at="2100-01-01T00:00:00Z")
    found["running"] = started(house, "climb", parameters={"gate": "pages"})
    for name in ("failed", "crashed", "done"):
        house.wait(found[name])
    yield found
    for number in range(4):
        step(house, "pages", number)
    house.wait(found["running"], "COMPLETED")


def all_paths(runs: dict[str, str]) -> list[str]:
    return [
        "/",
        "/flows/",
        "/flows/climb/",
        "/flows/typed/",
        "/runs/",
        "/runs/?q=nothing+like+it",
        "/schedules/",
        "/workers/",
        *(f"/runs/{run}/" for run in runs.values()),
        *(f"/runs/{runs['failed']}/?tab={tab}" for tab in ("events", "parameters")),
        "/admin/",
        "/admin/runs/run/",
        f"/admin/runs/run/{runs['failed']}/change/",
        "/admin/flows/flow/",
        "/admin/flows/schedule/add/",
        "/admin/auth/user/",
        "/api/docs",
    ]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_is_silent_and_no_wider_than_the_screen(new_page, administrator, runs, size):
    page = new_page(storage_state=administrator, viewport=size)

    widths = {}
    for path in all_paths(runs):
        assert page.goto(path).status == 200
        widths[path] = page.evaluate("document.documentElement.scrollWidth")
    page.complaints.expect("404")
    page.goto("/runs/00000000-0000-0000-0000-000000000000/")
    widths["404"] = page.evaluate("document.documentElement.scrollWidth")

    assert {path: width for path, width in widths.items() if width > size["width"]} == {}


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_doors_are_silent_and_no_wider_than_the_screen(new_page, size):
    page = new_page(viewport=size)

    for path in ["/login/", "/welcome/?t=nonsense"]:
        page.goto(path)

        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_serious(new_page, administrator, runs, scheme):
    page = new_page(storage_state=administrator, color_scheme=scheme)
    paths = ["/", f"/runs/{runs['running']}/", f"/runs/{runs['failed']}/", "/runs/", "/flows/climb/", "/schedules/"]

    found = [finding for path in paths for finding in axe(page, path)]
    found += axe(new_page(color_scheme=scheme), "/login/")

    assert found == []


def axe(page, path: str) -> list[str]:
    page.goto(path)
    page.evaluate(AXE)
    violations = page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then((all) => all.violations)")
    return [
        f"{path} {rule['id']}: {node['html'][:160]} {node['failureSummary']}"
        for rule in violations
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]


def test_the_keyboard_finds_the_search_and_then_reaches_run_with_a_visible_focus(page):
    page.goto("/")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    assert page.locator("#search").input_value() == ""

    def tabbed() -> bool:
        page.keyboard.press("Tab")
        return page.evaluate("document.activeElement.getAttribute('aria-label')") == "Run C loop"

    until(tabbed, within=10, what="Tab reaches Run")
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "solid 2px" in outline


@pytest.mark.parametrize(("motion", "seconds"), [("reduce", 0), ("no-preference", 0.45)])
def test_the_bar_glides_only_where_motion_is_welcome(new_page, administrator, runs, motion, seconds):
    page = new_page(storage_state=administrator, reduced_motion=motion)

    page.goto(f"/runs/{runs['running']}/")

    took = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.hero rect.fill')).transitionDuration)")
    assert took == seconds


@pytest.mark.skipif(os.environ.get("PERFECT_SCREENSHOTS") != "1", reason="PERFECT_SCREENSHOTS=1 draws the picture")
def test_the_picture_in_the_readme_shows_the_overview_as_it_is(chromium, tmp_path):
    """The four examples with some history, and two runs under way, in an installation of their own."""
    with opened(tmp_path, worker=False) as house:
        house.start_worker(ROOT / "examples" / "workflows" / "example_flows.py", name="local")
        house.ready("weekly-executive-report")
        for flow, wish in history_of_a_day():
            house.wait(house.trigger(flow, **wish), within=60)

        context = chromium.new_context(viewport=DESK, color_scheme="dark")
        page = context.new_page()
        page.goto(sign_in_link(house))
        page.get_by_role("button", name="Sign in").click()
        says(page, "#live", "LIVE")
        shown = "[...document.querySelectorAll('#running .pct')].map((pct) => parseInt(pct.textContent))"
        house.trigger("churn-model-retraining", configuration="release")
        page.wait_for_function(f"() => {shown}[0] > 35", timeout=60_000)
        house.trigger("daily-sales-etl", configuration="release")
        page.wait_for_function(f"() => {{ const [a, b] = {shown}; return Math.min(a, b) > 25; }}", timeout=20_000)
        picture = page.screenshot()
        assert len(page.evaluate(shown)) == 2
        (ROOT / "docs" / "overview.png").write_bytes(picture)
        end_all(house)


def history_of_a_day() -> list[tuple[str, dict[str, object]]]:
    """What was run, oldest first: mostly well, one file that was not there, one check that found a crossed limit."""
    etl, churn = "daily-sales-etl", "churn-model-retraining"
    check, report = "infrastructure-health-check", "weekly-executive-report"
    named = ["development", "debug", "release"]
    wishes = [(flow, {"configuration": named[n % 3]}) for n in range(12) for flow in (etl, check, report)]
    wishes[10:10] = [(churn, {"configuration": name}) for name in ("debug", "development", "debug")]
    wishes.insert(20, (etl, {"parameters": {"source": "purchases-of-tomorrow.gz"}}))
    wishes.insert(30, (check, {"configuration": "release", "parameters": {"max_database_mb": 0.1}}))
    return [*wishes, (churn, {"configuration": "release"})]
