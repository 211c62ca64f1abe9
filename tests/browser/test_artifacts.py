"""What a run shows, as people see it: live, within its box, and harmless."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.journeys.house import House, until

from .conftest import DESK, PHONE, says
from .test_pages import axe

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def shown(house: House) -> str:
    """A run that has shown one of each kind."""
    house.gate.with_name("shown").touch()
    run_id = house.trigger("shows", parameters={"gate": "shown"})
    assert house.wait(run_id, within=60)["state"] == "COMPLETED"
    return run_id


def test_artifacts_appear_and_move_on_the_open_page(house: House, page):
    run_id = house.trigger("shows", parameters={"gate": "moving"})
    page.goto(f"/runs/{run_id}/")
    says(page, "#live", "LIVE")
    page.evaluate("window.stayed = true")

    says(page, "#run-artifacts", "49.5 %")
    page.locator("#run-artifacts .scroll").first.evaluate("box => box.scrollTo(0, 300)")
    house.gate.with_name("moving").touch()

    says(page, "#run-artifacts", "87.5 %", within=30)
    says(page, "#run-artifacts", "elsewhere", within=30)
    says(page, ".hero .state", "Completed", within=30)
    assert page.evaluate("window.stayed")
    assert (
        page.locator("#run-artifacts [role=region][aria-label='Table worst-customers']").evaluate("b => b.scrollTop")
        == 300
    )


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_they_fit_their_boxes_and_are_no_wider_than_the_screen(house, new_page, administrator, shown, size, scheme):
    page = new_page(storage_state=administrator, viewport=size, color_scheme=scheme)
    page.goto(f"/runs/{shown}/")

    table = page.locator("[aria-label='Table worst-customers']")
    page.locator("img[alt='Revenue by day']").scroll_into_view_if_needed()

    assert "first 100 of 5,000 rows" in page.locator("#run-artifacts").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert table.evaluate("box => box.scrollHeight > box.clientHeight")
    if size == PHONE:
        assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    page.wait_for_function("() => document.querySelector(\"img[alt='Revenue by day']\").naturalWidth === 320")
    assert axe(page, f"/runs/{shown}/") == []
    _keep(page, f"run-{size['width']}-{scheme}")


def _keep(page, name: str) -> None:
    """A picture for who wants to look, in the folder that SCREENSHOTS names."""
    if os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"{name}.png", full_page=True)


def test_all_of_them_and_each_by_itself(house: House, page, shown):
    page.goto(f"/runs/{shown}/artifacts/")
    assert page.locator("tbody tr").count() == 8
    _keep(page, "index")
    page.get_by_role("link", name="worst-customers").click()
    page.wait_for_url("**/artifacts/*/")
    assert "rows" in page.locator(".exhibit footer").inner_text()
    _keep(page, "table")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download worst-customers as csv").click()
    text = Path(begun.value.path()).read_text()
    assert text.startswith("customer,city,orders") and text.count("\n") == 5_001


def test_a_hostile_picture_opened_by_itself_runs_nothing(house: House, new_page, administrator, shown):
    page = new_page(storage_state=administrator)
    page.complaints.expect("sandboxed", "Content Security Policy", "script-src", "favicon")
    items = house.get(f"/api/runs/{shown}/artifacts")["items"]
    (curve,) = [item for item in items if item["key"] == "curve"]

    assert page.goto(f"{curve['url']}picture").status == 200
    until(lambda: page.evaluate("document.documentElement.tagName") == "svg", what="the picture")
    assert page.evaluate("document.documentElement.id") == ""
    assert page.evaluate("window.origin") == "null"
