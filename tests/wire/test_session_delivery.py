"""Nothing lost, nothing twice: `Session` against an honest server while everything around them goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from perfect_client.wire import messages, streams
from perfect_client.wire.streams import Stream

from tests.wire.session_server_side import FENCES, World

KEYS = [(fence, stream) for fence in FENCES for stream in messages.STREAMS]


class Delivery(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(in_flight=3)
        self.reached: dict[Any, int] = dict.fromkeys(KEYS, 0)  # the most the server ever had on disk

    # What runs do

    @rule(key=st.sampled_from(KEYS), records=st.integers(1, 6), size=st.integers(0, 900))
    def a_run_writes(self, key: Any, records: int, size: int) -> None:
        self.world.write(key, records, size)

    # What should happen

    @rule()
    def it_connects(self) -> None:
        self.world.connect()

    @rule(times=st.integers(1, 6))
    def it_sends(self, times: int) -> None:
        for _ in range(times):
            self.world.send()

    @rule(times=st.integers(1, 6))
    def frames_arrive(self, times: int) -> None:
        for _ in range(times):
            self.world.arrive()

    @rule()
    def the_server_commits(self) -> None:
        self.world.commit()
        for key in KEYS:
            self.reached[key] = max(self.reached[key], len(self.world.server.disk.get(key, [])))

    @rule(times=st.integers(1, 6))
    def words_arrive(self, times: int) -> None:
        for _ in range(times):
            self.world.hear()

    @rule(seconds=st.floats(0.1, 20))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.session.tick(self.world.now)

    @rule(key=st.sampled_from(KEYS), through=st.integers(0, 3), heard=st.integers(0, 4), refused=st.integers(0, 3))
    def a_run_writes_and_some_of_it_gets_through(self, key: Any, through: int, heard: int, refused: int) -> None:
        self.it_connects()
        self.it_sends(1)
        self.frames_arrive(6)
        self.words_arrive(6)
        self.a_run_writes(key, 7, 5)
        self.it_sends(4)
        self.the_server_is_unable(refused)
        self.frames_arrive(through)
        self.the_server_commits()
        self.words_arrive(heard)

    # What goes wrong

    @rule(code=st.sampled_from([1006, 1009, 4012]))
    def the_connection_is_cut(self, code: int) -> None:
        self.world.cut(code)

    @rule()
    def the_server_is_killed(self) -> None:
        self.world.server.crash()
        self.world.cut()

    @rule(times=st.integers(1, 8))
    def the_server_is_unable(self, times: int) -> None:
        self.world.server.refuse = times

    @rule(key=st.sampled_from(KEYS), kept=st.integers(0, 10))
    def an_older_database_is_restored(self, key: Any, kept: int) -> None:
        self.the_server_is_killed()
        self.world.server.disk[key] = self.world.server.disk.get(key, [])[:kept]

    @precondition(lambda self: not self.world.server.verdicts)
    @rule()
    def one_run_is_given_to_another_attempt(self) -> None:
        self.world.server.verdicts[2] = "stale"

    # What must hold

    @invariant()
    def what_counts_as_delivered_was_on_disk(self) -> None:
        for fence in set(FENCES) - self.world.dropped:
            if self.world.session.delivered(fence):
                for stream in messages.STREAMS:
                    assert self.world.shelves[fence, stream].count <= self.reached[fence, stream], "delivered too early"

    @invariant()
    def what_counts_as_acknowledged_was_on_disk(self) -> None:
        for stream in self.world.session._turn:
            assert stream.acked <= self.reached[stream.fence, stream.name], "acknowledged too early"

    @invariant()
    def the_server_has_a_prefix_of_what_was_written(self) -> None:
        for key in KEYS:
            found = self.world.server.has(key)
            assert found == self.world.written(key)[: len(found)], "not once and in order"

    @invariant()
    def it_keeps_to_its_credit(self) -> None:
        flying = sum(len(stream.in_flight) for stream in self.world.session._turn)
        assert flying <= 3
        assert all(len(batch.facts) <= 3 for batch in self.world.server.batches)

    def teardown(self) -> None:
        self.world.server.refuse = 0
        if self.world.server.verdicts:
            self.world.cut()  # a run given away that has nothing to say hears of it when the worker joins again
        self.world.settle()

        for key in KEYS:
            if key[0] not in self.world.dropped:
                assert self.world.server.disk.get(key, []) == self.world.written(key), "not all arrived"
                assert self.world.session.delivered(key[0]), "never delivered"
        assert self.world.dropped == set(self.world.server.verdicts)


def run(examples: int, *phases: Phase) -> None:
    run_state_machine_as_test(
        Delivery,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=phases or tuple(Phase),
        ),
    )


def test_after_any_trouble_every_record_is_applied_once_and_in_order() -> None:
    run(examples=settings.default.max_examples * 5 // 2)


# Planted bugs: a checker that finds none of them proves nothing.


def forget_on_send(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stream.take

    def take(self: Stream, limits: Any, now: float) -> Any:
        frame = honest(self, limits, now)
        self.acked = self.sent
        return frame

    monkeypatch.setattr(Stream, "take", take)


def do_not_rewind_on_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "disconnect", lambda self: None)
    monkeypatch.setattr(Stream, "resume", lambda self, number: None)


def number_one_record_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = streams.encode_batch

    def encode(fence: int, run: str, stream: str, first: int, records: Any) -> bytes:
        return honest(fence, run, stream, max(1, first - 1), records)

    monkeypatch.setattr(streams, "encode_batch", encode)


def ignore_resend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "resend", lambda self, first, now: None)


def believe_any_acknowledgement_to_be_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stream.acknowledge
    monkeypatch.setattr(Stream, "acknowledge", lambda self, upto: honest(self, self.sent))


def forget_the_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfect_client.wire.session.sum", lambda lengths: 0, raising=False)


@pytest.mark.parametrize(
    "plant",
    [
        forget_on_send,
        do_not_rewind_on_reconnect,
        number_one_record_twice,
        ignore_resend,
        believe_any_acknowledgement_to_be_for_all,
        forget_the_credit,
    ],
)
def test_the_checker_catches_a_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        run(1000, Phase.generate)  # found is enough: to make the example small takes long
