"""Once history has given the calls their extents, the bar goes with the clock, whatever the code declares."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runs.rules.progress import MORE_OF_A_LOOP, Item, parts, run_progress, with_guesses

NOW = 1_800_000_000.0


def done(seconds: float, ended: float = 0.0, **known: object) -> Item:
    """A call that took ``seconds`` and ended ``ended`` seconds ago."""
    return Item(state="COMPLETED", started_at=NOW - ended - seconds, ended_at=NOW - ended, **known)  # type: ignore[arg-type]


def running(seconds: float, **known: object) -> Item:
    return Item(state="RUNNING", started_at=NOW - seconds, **known)  # type: ignore[arg-type]


def lasts(seconds: float, at_once: int = 1) -> dict[str, float]:
    return {"learned_ms": seconds * 1000, "extent_ms": seconds * 1000 / at_once}


def test_time_outvotes_declared_weights() -> None:
    tasks = [done(10, weight=9, **lasts(10)), Item(weight=1, **lasts(90))]

    assert run_progress(tasks, NOW) == pytest.approx(10)


def test_a_call_that_ended_weighs_what_it_took() -> None:
    assert run_progress([done(30, **lasts(10)), Item(**lasts(10))], NOW) == pytest.approx(75)


def test_a_call_that_took_its_result_from_a_cache_counts_as_the_work_that_it_saved() -> None:
    cached = replace(done(0.001, **lasts(10)), state="CACHED")

    assert run_progress([cached, Item(**lasts(30))], NOW) == pytest.approx(25)


def test_a_call_that_takes_longer_than_expected_goes_on_counting_and_never_claims_to_be_done() -> None:
    shown = [run_progress([running(seconds, **lasts(10)), Item(**lasts(10))], NOW) for seconds in (10, 20, 40, 400)]

    assert shown == sorted(shown)
    assert shown[1] == pytest.approx(65, abs=3) and shown[2] == pytest.approx(80, abs=2)


def test_calls_at_once_take_up_less_of_the_run() -> None:
    """Four at once after 10 s alone: the whole is 20 s, though all calls together last 50."""
    tasks = [done(10, **lasts(10)), *[Item(**lasts(10, at_once=4)) for _ in range(4)]]

    assert run_progress(tasks, NOW) == pytest.approx(50)


def test_a_call_that_history_does_not_know_counts_by_what_the_code_says_of_it() -> None:
    assert run_progress([done(10, **lasts(10)), Item(estimated_ms=10_000)], NOW) == pytest.approx(50)


# --- what will not come any more -------------------------------------------------------------------------------------


def check(seconds: float, **later: object) -> float:
    """Done is ``check``; ``repair`` did not come; ``load`` has run for so long."""
    repair = Item(key="repair", rank=1, weight=1)
    load = Item(key="load", rank=2, weight=1, state="RUNNING", started_at=NOW - seconds, reported=0.0)
    return run_progress([done(1, key="check", rank=0, weight=1), repair, replace(load, **later)], NOW)  # type: ignore[arg-type]


def test_a_branch_that_the_flow_has_passed_is_dropped_once_that_is_plain() -> None:
    assert check(0.5) == pytest.approx(100 / 3)
    assert check(1.5) == pytest.approx(50)
    assert check(0.5, state="COMPLETED") == 99.0


def test_a_task_whose_order_nobody_knows_drops_nothing() -> None:
    assert check(1.5, rank=None) == pytest.approx(100 / 3)


def test_calls_of_a_task_that_is_at_work_are_still_to_come() -> None:
    """A map goes on in its pool while the flow has begun with something else."""
    pool = [running(5, key="page", rank=1, weight=1, reported=0.0), Item(key="page", rank=1, weight=1)]
    other = running(5, key="other", rank=2, weight=1, reported=0.0)

    assert sum(part.whole for part in parts([*pool, other], NOW)) == 3


def test_calls_that_a_loop_did_not_need_are_dropped_when_the_flow_goes_on() -> None:
    rows = [done(1, key="row", rank=0, **lasts(1)) for _ in range(6)]
    unneeded = [Item(key="row", rank=0, **lasts(1)) for _ in range(4)]
    store = running(2, key="store", rank=1, **lasts(4))

    assert run_progress([*rows, *unneeded, store], NOW) == pytest.approx(80)


# --- without history -------------------------------------------------------------------------------------------------


def test_a_loop_of_unknown_length_is_thought_to_go_on_until_the_flow_has_passed_it() -> None:
    rows = [done(1, key="row", rank=0, weight=1, in_loop=True) for _ in range(MORE_OF_A_LOOP)]

    assert run_progress([*rows, Item(key="end", rank=1, weight=1)], NOW) == pytest.approx(49.2, abs=0.1)
    end = running(0, key="end", rank=1, weight=1, reported=0.0)
    assert run_progress([*rows, end], NOW) == pytest.approx(100 * MORE_OF_A_LOOP / (MORE_OF_A_LOOP + 1))


def test_a_unit_of_weight_lasts_as_long_as_it_has_lasted_in_this_run() -> None:
    """The first took 4 s for a weight of 2; so the second, of weight 5, is thought to need 10 s."""
    tasks = [done(4, ended=10, weight=2), running(10, weight=5)]

    assert run_progress(with_guesses(tasks), NOW) == pytest.approx(100 * (2 + 5 / 2) / 7)
    assert with_guesses(tasks)[1].guess_ms == pytest.approx(10_000)
