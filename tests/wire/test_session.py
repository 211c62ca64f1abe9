"""What a worker says and when, and how it takes the server's word. `test_session_delivery` does the rest at random."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from perfect_client.wire.messages import (
    Accept,
    Acknowledge,
    CancelRun,
    DropRun,
    Echo,
    FactsRecorded,
    FlowsAnnounced,
    FlowSpec,
    FlowsRefused,
    Held,
    Joined,
    OfferRun,
    ProcessExited,
    Refuse,
    Resend,
    RunStarted,
    StartRun,
    Unknown,
    Verdict,
    decode,
    encode_fact,
)
from perfect_client.wire.session import Session

from tests.wire.session_server_side import Shelf

ME = Joined("w-1", "b-1", name="mill", slots=2)


def said(session: Session, now: float = 0.0, most: int = 100) -> list[Any]:
    """All that it says now, decoded."""
    frames = [session.next_frame(now) for _ in range(most)]
    return [decode(frame) for frame in frames if frame is not None]


def joined(session: Session | None = None, held: Any = (), now: float = 0.0, **accept: Any) -> Session:
    session = session or Session(ME)
    session.open(now, list(held))
    assert [type(message) for message in said(session, now)] == [Joined]
    session.receive(Accept(1000.0, **accept), now)
    return session


def shelf(*records: Any) -> Shelf:
    new = Shelf()
    new.records = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    return new


def numbers(messages: list[Any]) -> list[Any]:
    return [(m.fence, m.first, m.first + len(m.facts) - 1) for m in messages if isinstance(m, FactsRecorded)]


# --------------------------------------------------------------------------------------------------------------- join


def test_it_says_nothing_before_a_connection_is_open() -> None:
    session = Session(ME)
    session.announce(FlowsAnnounced([]))
    session.free(2)

    assert said(session) == []
    assert session.wakes_at == math.inf
    assert session.tick(1e9)


def test_it_joins_with_what_it_holds_and_waits_for_the_word() -> None:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(1, 2, 3))
    session.announce(FlowsAnnounced([]))
    session.free(2)
    session.open(0.0, [Held(7, "r", facts=0, output=9)])

    (join,) = said(session)

    assert join == Joined("w-1", "b-1", name="mill", slots=2, held=[Held(7, "r", facts=3, output=9)])
    assert not session.accepted


def test_once_accepted_it_tells_flows_then_slots_then_facts() -> None:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(1, 2, 3))
    session.free(2)
    session.announce(FlowsAnnounced([FlowSpec("sales")]))

    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=1)])

    assert [type(m).__name__ for m in said(session)] == ["FlowsAnnounced", "SlotsFreed", "FactsRecorded"]
    assert session.accepted


def test_each_connection_hears_flows_and_slots_again() -> None:
    session = Session(ME)
    session.announce(FlowsAnnounced([]))
    session.free(1)
    joined(session)
    first = said(session)

    session.closed()
    assert not session.accepted
    joined(session)

    assert said(session) == first


def test_flows_announced_later_are_told_at_once() -> None:
    session = joined()
    session.announce(FlowsAnnounced([FlowSpec("new")], ["a.py:1: caf\udce9"]))

    (told,) = said(session)

    assert told == FlowsAnnounced([FlowSpec("new")], ["a.py:1: caf\\udce9"])


def test_one_that_drains_leaves_the_flows_to_the_process_that_follows_it() -> None:
    session = Session(ME)
    session.announce(FlowsAnnounced([FlowSpec("old")]))
    joined(session)
    said(session)

    session.drain([7])
    session.announce(FlowsAnnounced([FlowSpec("older")]))
    told = said(session)
    session.closed()
    joined(session)

    assert not any(isinstance(message, FlowsAnnounced) for message in [*told, *said(session)])


def test_flows_too_many_for_one_frame_become_a_sentence() -> None:
    session = joined()
    session.announce(FlowsAnnounced([FlowSpec("big", description="x" * (1 << 20))]))

    (told,) = said(session)

    assert told.flows == [] and "more than 1048576" in told.problems[0]
    assert session.notes == told.problems


def test_a_refusal_is_handed_on() -> None:
    session = Session(ME)
    session.open(0.0, [])

    assert session.receive(Refuse("no", 4426), 0.0) == [Refuse("no", 4426)]
    assert not session.accepted


def test_what_the_server_refused_of_the_flows_is_handed_on() -> None:
    assert joined().receive(FlowsRefused(["no"]), 0.0) == [FlowsRefused(["no"])]


def test_an_order_that_this_worker_does_not_know_is_ignored() -> None:
    session = joined()

    assert session.receive(decode('{"type":"TeaServed","cups":2}'), 0.0) == []
    assert session.accepted and said(session) == []


@pytest.mark.parametrize("message", [StartRun(1), OfferRun(1, "r", "f"), Acknowledge(1, 3), Resend(1, 1)])
def test_orders_before_acceptance_are_ignored(message: Any) -> None:
    session = Session(ME)
    session.open(0.0, [])

    assert session.receive(message, 0.0) == []


# ------------------------------------------------------------------------------------------------------------- slots


def test_free_slots_are_told_when_they_changed() -> None:
    session = joined()
    session.free(2)
    assert [m.free for m in said(session)] == [2]

    session.free(2)
    assert said(session) == []
    session.free(1)
    assert [m.free for m in said(session)] == [1]
    session.free(-1)
    assert [m.free for m in said(session)] == [0]


def test_after_an_offer_the_slots_are_told_even_if_they_are_as_before() -> None:
    session = joined()
    session.free(1)
    said(session)

    session.receive(OfferRun(7, "r", "f"), 0.0)
    session.free(0)
    session.free(1)
    session.decline(7, "r", "no such flow")

    assert [type(m).__name__ for m in said(session)] == ["OfferDeclined", "SlotsFreed"]


# ------------------------------------------------------------------------------------------------- claims and verdicts


def test_a_claim_is_not_kept_over_a_reconnect() -> None:
    session = joined()
    session.claim(7, "r")
    session.closed()
    session.decline(8, "r", "too late")

    joined(session)

    assert said(session) == []


def test_a_held_attempt_that_is_current_and_not_started_is_claimed_again() -> None:
    session = joined(held=[Held(7, "r", started=False)], attempts=[Verdict(7, "current")])

    (claim,) = said(session)

    assert (type(claim).__name__, claim.fence, claim.run) == ("OfferClaimed", 7, "r")


def test_a_started_attempt_is_not_claimed_again() -> None:
    assert said(joined(held=[Held(7, "r", started=True)], attempts=[Verdict(7, "current")])) == []


@pytest.mark.parametrize("word", ["stale", "unknown"])
def test_an_attempt_that_is_no_longer_ours_is_dropped_and_never_spoken_of(word: str) -> None:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(1))
    session.open(0.0, [Held(7, "r", started=False)])
    said(session)

    accept, drop = session.receive(Accept(1.0, [Verdict(7, word)]), 0.0)

    assert isinstance(accept, Accept)
    assert isinstance(drop, DropRun) and drop.fence == 7 and drop.reason
    assert said(session) == []
    assert session.delivered(7)


def test_a_cancel_that_came_while_away_is_an_order_now() -> None:
    session = Session(ME)
    session.open(0.0, [Held(7, "r", started=False)])
    said(session)

    _, cancel = session.receive(Accept(1.0, [Verdict(7, "current", cancel=True)]), 0.0)

    assert isinstance(cancel, CancelRun) and cancel.fence == 7
    assert said(session) == []


def test_a_verdict_of_a_word_from_the_future_ends_nothing() -> None:
    session = Session(ME)
    session.open(0.0, [Held(7, "r", started=True)])
    said(session)

    assert [type(m) for m in session.receive(Accept(1.0, [Verdict(7, "paused")]), 0.0)] == [Accept]


@pytest.mark.parametrize("order", [StartRun(7), CancelRun(7, "by ana"), DropRun(7, "old"), OfferRun(7, "r", "f")])
def test_orders_are_handed_on(order: Any) -> None:
    assert joined().receive(order, 0.0) == [order]


@pytest.mark.parametrize("message", [Echo(1.0), Unknown("TeaServed"), Acknowledge(99, 3), Resend(99, 1), ME])
def test_other_messages_are_no_orders(message: Any) -> None:
    assert joined().receive(message, 0.0) == []


def test_what_is_dropped_is_not_sent_any_more() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1, 2))
    session.claim(7, "r")

    session.receive(DropRun(7), 0.0)

    assert said(session) == []


# ---------------------------------------------------------------------------------------------------------- delivery


def test_it_sends_from_where_the_server_is() -> None:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(*range(10)))
    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=4)])

    (batch,) = said(session)

    assert batch == FactsRecorded(7, "r", 5, [4, 5, 6, 7, 8, 9])
    assert not session.delivered(7)
    session.receive(Acknowledge(7, 10), 0.0)
    assert session.delivered(7)


def test_a_stream_watched_after_acceptance_still_knows_the_verdict() -> None:
    session = joined(held=[Held(7, "r", started=True)], attempts=[Verdict(7, "current", output=2)])

    session.watch(7, "r", "output", shelf("a", "b", "c"))

    assert said(session) == [FactsRecorded(7, "r", 3, ["c"], "output")]


def test_delivered_means_all_streams() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1))
    session.watch(7, "r", "output", shelf(2))
    said(session)

    session.receive(Acknowledge(7, 1, "facts"), 0.0)
    assert not session.delivered(7)
    session.receive(Acknowledge(7, 1, "output"), 0.0)
    assert session.delivered(7)


def test_what_is_written_after_the_acknowledgement_is_not_delivered_yet() -> None:
    session, spool = joined(), shelf(1)
    session.watch(7, "r", "facts", spool)
    said(session)
    session.receive(Acknowledge(7, 1), 0.0)

    spool.records.append(b"2")

    assert not session.delivered(7)


def test_an_acknowledgement_of_what_was_never_sent_counts_for_what_was() -> None:
    session, spool = joined(), shelf(1)
    session.watch(7, "r", "facts", spool)
    said(session)
    session.receive(Acknowledge(7, 50), 0.0)
    spool.records.append(b"2")

    assert not session.delivered(7)
    assert numbers(said(session)) == [(7, 2, 2)]


def test_it_stops_at_the_credit_of_the_connection() -> None:
    session = joined(max_in_flight=4, max_batch_facts=2)
    session.watch(7, "r", "facts", shelf(*range(20)))

    assert numbers(said(session)) == [(7, 1, 2), (7, 3, 4), (7, 5, 6), (7, 7, 8)]
    session.receive(Acknowledge(7, 4), 0.0)
    assert numbers(said(session)) == [(7, 9, 10), (7, 11, 12)]


def test_a_long_backlog_does_not_keep_other_runs_waiting() -> None:
    session = joined(max_in_flight=4, max_batch_facts=2)
    session.watch(1, "r", "output", shelf(*range(1000)))
    session.watch(2, "r", "facts", shelf(1))
    session.watch(3, "r", "facts", shelf(1))

    assert {fence for fence, _, _ in numbers(said(session))} == {1, 2, 3}


def test_it_never_exceeds_its_own_limits_whatever_the_server_allows() -> None:
    session = joined(max_in_flight=1, max_batch_facts=10**6, max_batch_bytes=10**9)
    session.watch(7, "r", "facts", shelf(*["x" * 10_000] * 600))
    session.watch(8, "r", "facts", shelf(*range(600)))

    by_bytes = session.next_frame(0.0)
    session.receive(Acknowledge(7, 52), 0.0)
    by_count = session.next_frame(0.0)

    assert by_bytes is not None and len(by_bytes) < 530_000
    assert by_count is not None and len(decode(by_count).facts) == 500


def test_a_server_that_allows_nothing_still_gets_one_at_a_time() -> None:
    session = joined(max_in_flight=0, max_batch_facts=0, max_batch_bytes=0)
    session.watch(7, "r", "facts", shelf(1, 2))

    assert numbers(said(session)) == [(7, 1, 1)]


def test_what_was_in_flight_goes_again_after_a_reconnect() -> None:
    session = joined(max_batch_facts=2)
    session.watch(7, "r", "facts", shelf(*range(6)))
    assert len(numbers(said(session))) == 3
    session.receive(Acknowledge(7, 2), 0.0)

    session.closed()
    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=4)])

    assert numbers(said(session)) == [(7, 5, 6)]


def test_nothing_goes_again_on_its_own() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1))
    said(session)

    assert not any(isinstance(m, FactsRecorded) for now in range(29) for m in said(session, float(now)))


def test_a_forgotten_attempt_is_silent() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1))
    session.forget(7)
    session.forget(7)

    assert said(session) == []


# -------------------------------------------------------------------------------------- when somebody lost something


def test_a_restored_database_gets_everything_again() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(*range(5)))
    said(session)
    session.receive(Acknowledge(7, 5), 0.0)
    session.closed()

    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=2)])

    assert numbers(said(session)) == [(7, 3, 5)]
    assert not session.delivered(7)
    assert "went back from record 5 to 2" in session.notes[0]


def cut_short(*left: Any, server: int) -> Session:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(*left))
    return joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=server)])


def test_a_spool_cut_short_is_forgotten_quietly_and_noted() -> None:
    session = cut_short(1, 2, server=10)

    assert said(session) == []
    assert session.delivered(7)
    assert "the server has 10 records, this worker's spool only 2" in session.notes[0]


def test_what_comes_after_a_cut_spool_gets_new_numbers() -> None:
    session = Session(ME)
    spool = shelf(1, 2)
    session.watch(7, "r", "facts", spool)
    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=10)])

    spool.records.append(b"3")

    assert said(session) == [FactsRecorded(7, "r", 11, [3])]
    session.receive(Resend(7, 11), 0.0)
    assert said(session) == [FactsRecorded(7, "r", 11, [3])]


def test_how_the_run_ended_reaches_the_server_even_from_a_cut_spool() -> None:
    end = ProcessExited(2.0, "the machine went down")
    session = cut_short(encode_fact(RunStarted(1.0)), encode_fact(end), server=10)

    (batch,) = said(session)
    assert (batch.first, len(batch.facts), batch.facts[0]["reason"]) == (11, 1, end.reason)

    session.closed()
    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current", facts=10)])
    assert numbers(said(session)) == [(7, 11, 11)]
    session.receive(Acknowledge(7, 11), 0.0)
    assert session.delivered(7)


# --------------------------------------------------------------------------------------------------------- resistance


def refused(session: Session, first: int, times: int, now: float = 0.0) -> list[int]:
    """Sizes of the batches that it sends while the server refuses what begins at `first`."""
    sizes = []
    for n in range(times):
        sizes += [len(m.facts) for m in said(session, now + 60 * n) if isinstance(m, FactsRecorded)]
        session.heard(now + 60 * n)
        session.receive(Resend(7, first), now + 60 * n)
    return sizes


def test_a_batch_refused_three_times_is_halved_down_to_one_record() -> None:
    session = joined(silence_s=1e9, heartbeat_s=1e9)
    session.watch(7, "r", "facts", shelf(*range(8)))

    assert refused(session, 1, 15) == [8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_once_something_gets_through_batches_grow_again() -> None:
    session = joined(silence_s=1e9, heartbeat_s=1e9)
    session.watch(7, "r", "facts", shelf(*range(8)))
    refused(session, 1, 9)

    assert numbers(said(session, 1e6)) == [(7, 1, 1)]
    session.receive(Acknowledge(7, 1), 1e6)
    assert numbers(said(session, 1e6)) == [(7, 2, 3), (7, 4, 5), (7, 6, 7), (7, 8, 8)]


def test_echoes_of_one_refusal_are_not_three_refusals() -> None:
    session = joined(max_batch_facts=2, max_in_flight=4)
    session.watch(7, "r", "facts", shelf(*range(8)))
    said(session)

    for _ in range(4):  # one batch was refused, three more were in flight behind it
        session.receive(Resend(7, 1), 0.0)

    assert numbers(said(session)) == [(7, 1, 2)]
    session.receive(Resend(7, 1), 0.0)
    assert numbers(said(session)) == [(7, 1, 2)]
    session.receive(Resend(7, 1), 0.0)  # the third time that this batch itself is refused
    assert numbers(said(session)) == [(7, 1, 1)]


def test_a_resend_is_no_acknowledgement_of_what_stands_before_it() -> None:
    session = joined(max_batch_facts=2, max_in_flight=2)
    session.watch(7, "r", "facts", shelf(*range(4)))
    said(session)

    session.receive(Resend(7, 1), 0.0)  # both batches were refused, each by its own number
    session.receive(Resend(7, 3), 0.0)

    assert numbers(said(session)) == [(7, 1, 2)]


def test_after_a_refusal_one_batch_goes_at_a_time() -> None:
    session = joined(max_batch_facts=2)
    session.watch(7, "r", "facts", shelf(*range(8)))
    said(session)
    session.receive(Acknowledge(7, 2), 0.0)
    session.receive(Resend(7, 3), 0.0)

    assert numbers(said(session)) == [(7, 3, 4)]
    session.receive(Acknowledge(7, 4), 0.0)
    assert numbers(said(session)) == [(7, 5, 6), (7, 7, 8)]


def test_a_server_that_goes_on_refusing_is_given_time() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1))
    said(session)
    for _ in range(4):
        session.receive(Resend(7, 1), 0.0)
        last = said(session)

    assert last == []
    assert 0.0 < session.wakes_at < 10.0
    at = session.wakes_at
    assert session.tick(at)
    assert numbers(said(session, at)) == [(7, 1, 1)]
    assert session.wakes_at > at


def test_a_batch_that_took_three_connections_with_it_is_halved() -> None:
    session = Session(ME)
    session.watch(7, "r", "facts", shelf(*range(8)))
    sizes = []
    for _ in range(4):
        joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current")])
        sizes += [last - first + 1 for _, first, last in numbers(said(session))]
        session.closed()

    assert sizes == [8, 8, 8, 4]


def test_a_batch_that_was_too_big_is_halved_at_once() -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(*range(8)))
    said(session)
    session.closed(1009)

    joined(session, [Held(7, "r", started=True)], attempts=[Verdict(7, "current")])

    assert numbers(said(session)) == [(7, 1, 4)]


@pytest.mark.parametrize("first", [-5, 0, 1, 99])
def test_a_senseless_resend_breaks_nothing(first: int) -> None:
    session = joined()
    session.watch(7, "r", "facts", shelf(1, 2, 3))
    said(session)

    session.receive(Resend(7, first), 0.0)

    assert numbers(said(session)) in ([(7, 1, 3)], [])


# --------------------------------------------------------------------------------------------------------------- time


def test_it_beats_when_it_is_time_and_tells_what_runs() -> None:
    session = joined(heartbeat_s=10.0)
    session.watch(9, "r", "facts", shelf())
    session.watch(7, "r", "facts", shelf())

    assert session.tick(9.9) and said(session, 9.9) == []
    assert session.wakes_at == 10.0
    assert session.tick(10.0, time=1234.5)
    (beat,) = said(session, 10.0)
    assert (beat.running, beat.time) == ([7, 9], 1234.5)
    assert session.wakes_at == 20.0


def test_a_late_loop_beats_once_not_for_every_beat_it_missed() -> None:
    session = joined(heartbeat_s=1.0)

    session.tick(25.0, running=[3])

    (beat,) = said(session, 25.0)
    assert beat.running == [3]


def test_a_silent_server_is_left() -> None:
    session = joined(silence_s=30.0)
    assert session.tick(29.9)

    assert not session.tick(30.0)
    session.receive(Echo(1.0), 30.0)
    assert session.tick(59.9)
    session.heard(59.9)
    assert session.tick(89.8)


def test_a_server_that_never_answers_the_join_is_left_too() -> None:
    session = Session(ME)
    session.open(100.0, [])

    assert session.tick(129.9)
    assert session.wakes_at == 130.0
    assert not session.tick(130.0)


def test_a_server_without_a_sense_of_time_does_not_make_it_spin() -> None:
    session = joined(heartbeat_s=0.0)

    session.tick(0.0)

    assert session.wakes_at > 0.0


def test_leaving_is_said_only_to_who_listens() -> None:
    session = joined()
    session.leave("stopped")
    assert [type(m).__name__ for m in said(session)] == ["Left"]

    session.closed()
    session.leave("stopped")
    kinds: dict[str, Any] = {type(m).__name__: m for m in said(joined(session))}
    assert kinds == {}
