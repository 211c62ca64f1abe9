"""A person watches a flow that calls a flow: from the caller's page, and on the page of the called one."""

from __future__ import annotations

import pytest

from .conftest import DESK, PHONE, says, started, step

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_sub_flow_moves_in_its_callers_list_and_on_its_own_page(new_page, administrator, house, size):
    gate = f"expedition-{size['width']}"
    run_id = started(house, "expedition", parameters={"gate": gate})
    page = new_page(storage_state=administrator, viewport=size)
    page.goto(f"/runs/{run_id}/")

    step(house, gate, 0)
    says(page, "#run-timeline", "25 %")
    row = page.get_by_role("row").filter(has_text="Climb")
    row.get_by_role("link", name="Climb").click()

    page.wait_for_url("**/runs/*/")
    assert run_id not in page.url
    says(page, ".hero [data-pct]", "25 %")
    says(page, "#log", "ledger step 0")
    assert "ledger 2" not in page.locator("#log").inner_text()
    assert page.get_by_role("button", name="Cancel").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    step(house, gate, 1)
    says(page, ".hero [data-pct]", "50 %")
    says(page, "#log", "ledger step 2")
    for number in (2, 3):
        step(house, gate, number)
    says(page, ".hero", "Completed")
    page.get_by_label("Called by").get_by_role("link", name="Expedition").click()
    page.wait_for_url(f"**/runs/{run_id}/")
    says(page, "#log", "ledger step 3")

    page.goto("/runs/")
    assert page.locator("#run-list").get_by_text("called by Expedition").count() == 0
    page.get_by_text("sub-flows too").click()
    says(page, "#run-list", "called by Expedition")
    assert "called=1" in page.url
