"""What people do: sign in by the link, run a flow, watch it live, find it again, stop it, come back after an outage."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime, timedelta

import pytest

from tests.journeys.house import House, until

from .conftest import WATCH_PERCENT, newest, says, sign_in_link, started, step

pytestmark = pytest.mark.browser


def rows_of(page) -> list[str]:
    """The runs in the history, as it stands."""
    return [link.get_attribute("href").split("/")[2] for link in page.locator("#run-list tbody .first a").all()]


def shows(page, wanted: set[str], but: set[str]) -> bool:
    listed = set(rows_of(page))
    return wanted <= listed and not but & listed


def test_the_link_signs_in_once_and_the_second_time_it_says_how_to_get_another(house: House, new_page):
    link = sign_in_link(house)
    first, second = new_page(), new_page()

    first.goto(link)
    first.get_by_role("button", name="Sign in").click()
    first.wait_for_url("**/")
    second.complaints.expect("403")
    second.goto(link)
    second.get_by_role("button", name="Sign in").click()

    assert first.get_by_role("heading", name="Library").is_visible()
    assert "This link was used already" in second.locator("main").inner_text()
    assert "loginurl" in second.locator("main").inner_text()
    second.goto("/")
    assert "/login/" in second.url


def test_a_run_is_started_on_its_card_and_followed_live_to_its_end(house: House, page):
    page.goto("/")
    says(page, "#live", "LIVE")
    page.get_by_label("Configuration of Climb").select_option("long")
    page.get_by_role("button", name="Run Climb").click()
    says(page, "#toasts", "Climb is queued")
    run_id = newest(house, "climb")

    card = f'#running [data-run="{run_id}"]'
    says(page, f"{card} [data-note]", "climb")
    step(house, "climb", 0)
    says(page, f"{card} [data-pct]", "20 %")
    page.wait_for_function(
        "(bar) => parseFloat(document.querySelector(bar).getAttribute('width')) >= 20", arg=f"{card} rect[data-seg]"
    )

    page.get_by_role("link", name="Watch it").click()
    page.wait_for_url(f"**/runs/{run_id}/")
    page.evaluate(WATCH_PERCENT)
    for number in range(1, 5):
        says(page, f".log #L{number + 1} .m", f"ledger step {number}")
        says(page, ".hero [data-pct]", f"{number * 20} %")
        assert f"{number * 20} %" in page.title()
        step(house, "climb", number)

    says(page, ".hero .state", "Completed")
    says(page, ".hero [data-pct]", "100 %")
    page.wait_for_function("() => document.title.startsWith('Completed')")
    assert "2ff3a0" in page.locator("#favicon").get_attribute("href")
    assert page.evaluate("window.stayed")  # the page has never been reloaded
    seen = page.evaluate("window.seen")
    assert seen == sorted(seen) and {20, 40, 60, 80, 100} <= set(seen)
    assert [line.inner_text() for line in page.locator(".log p .m").all()] == [f"ledger step {n}" for n in range(5)]
    assert house.run(run_id)["configuration"] == "long"


def test_a_card_that_lacks_a_parameter_says_which_and_leads_to_the_form(page):
    page.complaints.expect("422")
    page.goto("/")

    page.get_by_role("button", name="Run Typed").click()
    says(page, "#toasts", "'count' is missing")
    page.get_by_role("link", name="Fill it in").click()
    page.wait_for_url("**/flows/typed/#run-form")
    page.get_by_label("count").fill("3")
    page.get_by_role("button", name="Run Typed").click()
    page.wait_for_url("**/runs/*/")

    says(page, ".hero .state", "Completed")
    assert "3 1.5 a fast" in page.locator(".hero").inner_text()


def test_the_form_shows_the_defaults_of_the_chosen_configuration(page):
    page.goto("/flows/climb/")
    page.get_by_label("gate").fill("typed by hand")
    assert page.get_by_label("steps").get_attribute("placeholder") == "3"

    page.get_by_label("Configuration", exact=True).select_option("long")

    page.wait_for_function("() => document.getElementById('p-steps').placeholder === '5'")
    assert page.get_by_label("gate").input_value() == "typed by hand"


def test_the_history_is_narrowed_by_filters_that_stay_in_the_address(house: House, page):
    done, failed = house.trigger("steady", parameters={"lines": 7}), house.trigger("raises")
    house.wait(done), house.wait(failed)
    page.goto("/runs/")
    assert shows(page, {done, failed}, set())

    page.locator(".chip.FAILED").click()
    page.wait_for_url("**state=FAILED*")
    until(lambda: shows(page, {failed}, {done}), what="only what failed")
    page.reload()
    assert shows(page, {failed}, {done}) and page.locator(".chip.FAILED input").is_checked()

    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Flow", exact=True).select_option(label="Steady")
    page.wait_for_url("**flow=steady*")
    until(lambda: shows(page, {done}, {failed}), what="only Steady")

    page.goto("/runs/")
    page.get_by_label("Find", exact=True).fill("no such table")  # it stands in the error
    page.wait_for_url("**q=no*")
    until(lambda: shows(page, {failed}, {done}), what="only the error's")
    page.reload()
    assert shows(page, {failed}, {done}) and page.get_by_label("Find", exact=True).input_value() == "no such table"

    page.goto("/runs/")
    page.get_by_label("Since").fill((datetime.now(UTC) + timedelta(days=2)).date().isoformat())
    page.get_by_role("button", name="Filter").click()
    says(page, "#run-list", "No run matches")
    page.get_by_label("Since").fill((datetime.now(UTC) - timedelta(days=1)).date().isoformat())
    page.get_by_role("button", name="Filter").click()
    until(lambda: shows(page, {done, failed}, set()), what="what is of today")
    assert "since=" in page.url

    page.locator("#search").fill(done)  # an id leads to its run
    page.locator("#search").press("Enter")
    page.wait_for_url(f"**/runs/{done}/")


def test_a_run_that_ignores_the_request_is_stopped_and_the_page_shows_each_stage(house: House, page):
    run_id = started(house, "c-loop")
    page.goto(f"/runs/{run_id}/")

    page.get_by_role("button", name="Cancel").click()
    says(page, ".hero .tag.warn", "stopping, asked by admin")
    says(page, ".hero .state", "Cancelled", within=14)

    says(page, ".hero", "cancelled by admin")
    assert page.get_by_role("button", name="Run again").is_visible()
    assert page.get_by_role("button", name="Cancel").count() == 0


def test_an_answer_is_shown_although_a_live_frame_took_its_button_away(house: House, page):
    run_id = started(house, "c-loop")
    page.goto(f"/runs/{run_id}/")
    page.get_by_role("button", name="Cancel").wait_for()

    page.evaluate("""() => {
      document.querySelector('.hero [hx-post$="/cancel/"]').click();
      const hero = document.querySelector(".hero");
      hero.outerHTML = hero.outerHTML;  // as a frame does, before the answer can be here
    }""")

    says(page, "#toasts", "stop")
    assert page.locator("#toasts .toast").count() == 1
    house.wait(run_id, within=15)


def test_an_open_page_outlives_its_server_and_catches_up_with_what_it_missed(house: House, page):
    before = {run["id"] for run in house.get("/api/runs?limit=100")["items"]}
    run_id = started(house, "climb", parameters={"steps": 3, "gate": "outage"})
    page.complaints.expect("WebSocket", "ERR_CONNECTION", "Failed to load resource", "Failed to fetch")
    page.goto(f"/runs/{run_id}/")
    page.evaluate(WATCH_PERCENT)
    says(page, "#live", "LIVE")

    house.kill(house.server, signal.SIGTERM)
    says(page, "#live", "reconnecting")
    for number in range(3):
        step(house, "outage", number)
    until(lambda: {"run": run_id, "end": True} in house.told(), what="the run ended alone")
    house.start_server()

    says(page, "#live", "LIVE", within=40)
    says(page, ".hero .state", "Completed")
    says(page, ".log #L3 .m", "ledger step 2")
    assert page.evaluate("window.stayed") and page.evaluate("window.seen") == sorted(page.evaluate("window.seen"))
    assert {run["id"] for run in house.get("/api/runs?limit=100")["items"]} == before | {run_id}
    page.goto("/runs/")
    assert shows(page, before | {run_id}, set())


ACTING = re.compile("^(Run|Cancel|Pause|Resume|Give up|Rerun)")


def test_a_viewer_sees_everything_and_can_do_nothing(house: House, new_page, people):
    run_id = started(house, "climb", parameters={"gate": "viewer"})
    page = new_page()
    name, password = people["viewer"]
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")

    for path in ["/", "/flows/", "/flows/climb/", "/runs/", f"/runs/{run_id}/", "/schedules/", "/workers/"]:
        assert page.goto(path).status == 200
        says(page, "#live", "LIVE")
        acting = [*page.get_by_role("button", name=ACTING).all(), *page.locator("a.btn", has_text=ACTING).all()]
        assert [button.inner_text() for button in acting if button.is_visible()] == [], path

    page.goto(f"/runs/{run_id}/")
    says(page, ".log", "ledger step 0")
    token = page.locator("meta[name=csrf]").get_attribute("content")
    for path in [f"/runs/{run_id}/cancel/", "/flows/climb/run/", f"/runs/{run_id}/retry/"]:
        answer = page.request.post(path, headers={"X-CSRFToken": token, "Referer": page.url})
        assert (path, answer.status) == (path, 403)
    assert house.run(run_id)["cancel_requested_at"] is None
    for number in range(4):
        step(house, "viewer", number)
    house.wait(run_id, "COMPLETED")
