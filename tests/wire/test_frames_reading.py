"""What `Frames.feed` promises beyond single streams: it fails at once, and how bytes are cut never matters."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from perfect_client.wire.frames import Binary, Closed, Event, Frames, Ping, Pong, ProtocolFault, Text

from tests.wire.frames_server_side import BINARY, CLOSE, MORE, PING, PONG, TEXT, close, fragments, frame, pieces, read

MIB = 1 << 20
steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no bug


def first_bad_byte(stream: bytes) -> int:
    """Which byte, counted from 1, brings the fault when the stream trickles in."""
    frames = Frames()
    for count, byte in enumerate(stream, 1):
        try:
            frames.feed(bytes([byte]))
        except ProtocolFault:
            return count
    raise AssertionError("no fault")


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        pytest.param(frame(TEXT, b"abc\xff" + b"." * 100), 2 + 4, id="a byte that never occurs"),
        pytest.param(frame(TEXT, b"\xf4\x90\x80\x80" + b"." * 100), 2 + 2, id="beyond U+10FFFF"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80" + b"." * 100), 2 + 2, id="half a surrogate"),
        pytest.param(frame(TEXT, b"\xe0\x80\x80" + b"." * 100), 2 + 2, id="longer than needed"),
        pytest.param(frame(TEXT, b"\xc3", fin=False) + frame(MORE, b"x", fin=False), 3 + 3, id="across fragments"),
        pytest.param(
            frame(TEXT, b"\xed", fin=False) + frame(PING) + frame(MORE, b"\xa0"), 3 + 2 + 3, id="around a ping"
        ),
        pytest.param(frame(TEXT, b"\xc3"), 2 + 1, id="a character that the message's end cuts"),
        pytest.param(frame(TEXT, b"a", rsv=4), 2, id="a reserved bit"),
        pytest.param(frame(CLOSE, b"a"), 2 + 1, id="half a close code"),
        pytest.param(b"\x82\x7f" + (MIB + 1).to_bytes(8, "big"), 2 + 8, id="too big, known from the header"),
    ],
)
def test_it_fails_at_the_first_byte_that_cannot_be_right(stream: bytes, count: int) -> None:
    assert first_bad_byte(stream) == count


def test_a_surrogate_pair_in_one_read_fails_too() -> None:
    assert read(frame(TEXT, b"ok \xed\xa0")[:-1], b"\xa0").fault == 1007


def test_a_fault_says_in_a_sentence_what_is_wrong() -> None:
    with pytest.raises(ProtocolFault, match=r"^A close frame holds half a code\.$"):
        Frames().feed(frame(CLOSE, b"a"))


def test_a_fault_carries_the_events_that_came_before_it() -> None:
    frames = Frames()

    with pytest.raises(ProtocolFault, match="reserved bit") as caught:
        frames.feed(frame(TEXT, b"kept") + frame(PING, b"too") + frame(TEXT, b"bad", rsv=1))

    assert caught.value.code == 1002
    assert caught.value.events == [Text("kept"), Ping(b"too")]


def test_after_a_fault_every_feed_repeats_it_without_events() -> None:
    frames = Frames()
    with pytest.raises(ProtocolFault):
        frames.feed(frame(TEXT, b"kept") + frame(TEXT, b"\xff"))

    for data in (b"", frame(TEXT, b"Hello")):
        with pytest.raises(ProtocolFault, match="not UTF-8") as again:
            frames.feed(data)
        assert (again.value.code, again.value.events) == (1007, [])


def test_after_a_close_frame_silence_is_fine_and_data_is_not() -> None:
    frames = Frames()

    assert frames.feed(close(4012, b"restart")) == [Closed(4012, "restart")]
    assert frames.feed(b"") == []
    with pytest.raises(ProtocolFault, match="after its close frame"):
        frames.feed(b"\x81")


@pytest.mark.parametrize("size", [0, 1, 10])
def test_the_limit_itself_is_still_allowed(size: int) -> None:
    data = b"." * size

    assert read(frame(BINARY, data), max_message=size).events == [Binary(data)]
    assert read(fragments(BINARY, data[:1], data[1:]), max_message=size).events == [Binary(data)]
    assert read(frame(BINARY, data + b"."), max_message=size).fault == 1009
    assert read(fragments(BINARY, data, b"", b"."), max_message=size).fault == 1009


def test_the_limit_is_for_one_message_and_control_frames_do_not_count() -> None:
    stream = fragments(TEXT, b"12345", b"67890")[:7] + frame(PING, b"." * 125) + frame(MORE, b"67890")

    assert read(stream * 3, max_message=10).events == [Ping(b"." * 125), Text("1234567890")] * 3


def test_a_message_over_the_limit_is_refused_before_its_payload_arrives() -> None:
    assert read(b"\x81\x7f" + (1 << 40).to_bytes(8, "big")).fault == 1009


def test_one_mebibyte_reads_the_same_in_one_piece_and_byte_by_byte() -> None:
    text = ("Grüße aus 東京 " * 60000).encode("utf-8")[: MIB - 2].decode("utf-8", "ignore")
    stream = frame(TEXT, text.encode("utf-8")) + frame(PING, b"still here")
    expected = [Text(text), Ping(b"still here")]
    started = time.perf_counter()

    assert read(stream).events == expected
    assert read(*pieces(stream, 1)).events == expected

    # Seconds when every byte is touched once; many minutes when each one moves all that came before it.
    assert time.perf_counter() - started < 60


def test_many_small_frames_cost_the_same_in_one_read_as_in_many() -> None:
    stream = frame(TEXT, b"four") * (MIB // 6)

    def processor_time(*chunks: bytes) -> float:
        started = time.process_time()
        assert len(read(*chunks).events) == MIB // 6
        return time.process_time() - started

    # Equal when a frame is taken off the front for free; eight times as much when the rest moves up.
    assert processor_time(stream) < 3 * processor_time(*pieces(stream, 4096))


# --- How the stream is cut ---

controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)).map(lambda c: frame(*c))


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A message in random fragments with control frames between them, and the events it must give."""
    is_text = draw(st.booleans())
    text = draw(st.text(max_size=80))
    payload = text.encode("utf-8") if is_text else draw(st.binary(max_size=300))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    edges = list(zip([0, *cuts], [*cuts, len(payload)]))
    stream = b""
    events: list[Event] = []
    for n, (start, end) in enumerate(edges):
        opcode = MORE if n else (TEXT if is_text else BINARY)
        stream += frame(opcode, payload[start:end], fin=n == len(edges) - 1)
        if n < len(edges) - 1 and draw(st.booleans()):
            data = draw(st.binary(max_size=125))
            choices: list[tuple[int, Event]] = [(PING, Ping(data)), (PONG, Pong(data))]
            kind, event = draw(st.sampled_from(choices))
            stream += frame(kind, data)
            events.append(event)
    events.append(Text(text) if is_text else Binary(payload))
    return stream, events


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)])]


@steady
@given(st.lists(messages(), max_size=4), st.data())
def test_what_the_server_sends_is_what_comes_out(sent: list[tuple[bytes, list[Event]]], data: st.DataObject) -> None:
    stream = b"".join(part for part, _ in sent)

    outcome = read(*data.draw(cut(stream)))

    assert outcome == ([event for _, events in sent for event in events], None)


heads = st.binary(min_size=2, max_size=2).map(lambda two: bytes([two[0] & 0x8F, two[1] & 0x7F]))
almost_lawful = st.lists(
    st.one_of(controls, messages().map(lambda m: m[0]), heads, st.binary(max_size=12)), max_size=6
).map(b"".join)


@steady
@given(almost_lawful, st.data())
@example(frame(TEXT, b"\xed\xa0\x80"), None)
@example(close(1000) + b"x", None)
def test_how_the_stream_is_cut_changes_neither_events_nor_fault(stream: bytes, data: st.DataObject | None) -> None:
    whole = read(stream)

    assert read(*pieces(stream, 1)) == whole
    if data is not None:
        assert read(*data.draw(cut(stream))) == whole


def test_every_single_cut_of_a_mixed_stream_gives_the_same_events() -> None:
    stream = fragments(TEXT, b"gr\xc3", b"\xbc\xc3\x9f", b"e") + frame(PING, b"p") + frame(BINARY, b"." * 300)
    stream += frame(TEXT, b"") + close(4409, "ersetzt – ja".encode())
    whole = read(stream)

    assert len(whole.events) == 5
    for place in range(len(stream) + 1):
        assert read(stream[:place], stream[place:]) == whole


@steady
@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_in_any_other_way(stream: bytes) -> None:
    assert read(stream).fault in (None, 1002, 1007, 1009)
