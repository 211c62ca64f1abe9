"""What a person does: sign in by the link, run a flow, watch it live, find it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.journeys.house import House, until

from .conftest import sign_in_link

pytestmark = pytest.mark.browser
PICTURES = Path(__file__).resolve().parents[2] / "docs"


def percent_of(page) -> int:
    found = re.search(r"(\d+) %", page.locator(".hero .pct").inner_text())
    return int(found.group(1)) if found else 0


def lines_of(page) -> int:
    return page.locator(".log p, .log [id^=L]").count()


def test_the_link_signs_in_once_and_says_so_the_second_time(house: House, chromium):
    link = sign_in_link(house)
    context = chromium.new_context()
    first = context.new_page()
    first.goto(link)
    first.locator("form button").click()
    first.wait_for_url("**/")
    assert first.get_by_role("heading", name="Library").is_visible()
    context.close()

    again = chromium.new_context().new_page()
    again.goto(link)
    again.locator("form button").click()

    assert "loginurl" in again.locator("main").inner_text()
    again.context.close()


def test_a_run_is_started_on_its_card_and_watched_to_its_end(house: House, page):
    page.goto("/")
    card = page.locator("article", has=page.get_by_role("link", name="Gated", exact=True)).last
    card.get_by_role("button", name="Run").click()
    run_id = until(lambda: next((e["run"] for e in house.told()), None), what="the run started")
    page.goto(f"/runs/{run_id}/")

    until(lambda: percent_of(page) >= 10, what="the bar moves")
    held, lines = percent_of(page), lines_of(page)
    assert 0 < held < 100 and lines >= 20
    house.gate.touch()

    until(lambda: percent_of(page) == 100, within=15, what="the bar is full, without a reload")
    until(lambda: lines_of(page) > lines, what="the log grew")
    until(
        lambda: "100 %" in page.title() or "Completed" in page.title() or "✔" in page.title(), what="the title says so"
    )
    assert page.locator(".hero .state").inner_text().strip().endswith("Completed")


def test_the_history_is_narrowed_by_filters_that_stay_in_the_address(house: House, page):
    done, failed = house.trigger("steady"), house.trigger("raises")
    house.wait(done), house.wait(failed)

    page.goto("/runs/?state=FAILED")
    assert page.locator(f'main a[href="/runs/{failed}/"]').count() >= 1
    assert page.locator(f'main a[href="/runs/{done}/"]').count() == 0
    page.reload()
    assert "state=FAILED" in page.url

    page.goto("/runs/?q=no+such+table")  # free text: it stands in the error
    assert page.locator(f'main a[href="/runs/{failed}/"]').count() >= 1
    assert page.locator(f'main a[href="/runs/{done}/"]').count() == 0

    page.goto("/runs/?flow=steady")
    assert page.locator(f'main a[href="/runs/{done}/"]').count() >= 1

    page.goto(f"/runs/?q={done}")  # an id leads to its run
    assert page.url.endswith(f"/runs/{done}/")


def test_a_running_run_is_cancelled_from_its_page(house: House, page):
    run_id = house.trigger("c-loop")
    house.wait(run_id, "RUNNING")
    page.goto(f"/runs/{run_id}/")

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").first.click()

    house.wait(run_id, "CANCELLED", within=14)
    until(lambda: "Cancelled" in page.locator(".hero .state").inner_text(), what="the page says so")


def test_an_open_page_comes_back_by_itself_after_the_server_did(house: House, page):
    page.goto("/")
    badge = page.locator("#live, .live").first
    until(lambda: "live" in badge.inner_text().lower(), what="live")

    house.kill(house.server)
    until(lambda: "live" not in badge.inner_text().lower(), within=30, what="the page admits it")
    house.start_server()

    until(lambda: badge.inner_text().strip().lower() == "live", within=40, what="live again")
    page.complaints.clear()  # a browser reports the refused connections


@pytest.mark.parametrize("width", [1440, 360])
@pytest.mark.parametrize(
    "path", ["/", "/flows/", "/flows/steady/", "/runs/", "/schedules/", "/workers/", "/admin/", "/admin/runs/run/"]
)
def test_no_page_is_wider_than_the_screen(house: House, page, width: int, path: str):
    page.set_viewport_size({"width": width, "height": 800})

    page.goto(path)

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_finds_the_search_field(page):
    page.goto("/")

    page.keyboard.press("/")

    assert page.evaluate("document.activeElement.name") == "q"
