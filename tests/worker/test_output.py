"""What a run writes is drained, cut into lines, counted, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path

from perfect_client.journal import spool
from perfect_client.wire import messages
from perfect_client.worker.pipes import LineCutter, Output


def test_prints_come_once_and_in_order(server, worker):
    attempt, _ = server.run("prints", lines=20_000)

    assert attempt.lines == [f"line {number}" for number in range(20_000)]


def test_ten_megabytes_past_python_all_arrive_and_the_supervisor_stays_small(server, worker):
    server.run("hello")
    before = resident_kb(worker.pid)

    attempt, end = server.run("writes_past_python", megabytes=10)

    assert end["outcome"] == "COMPLETED"
    server.wait(lambda: len(attempt.lines) >= 100_000)
    assert set(attempt.lines) == {"x" * 99}
    assert len(attempt.lines) == 100_000
    assert resident_kb(worker.pid) - before < 20_000


def resident_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_lines_are_whole_however_the_bytes_come():
    cutter = LineCutter()

    assert cutter.feed("grü".encode()[:-1]) == []
    assert cutter.feed("ü".encode()[-1:] + b"n\r\nblau\nro") == ["grün", "blau"]
    assert cutter.feed(b"t") == []
    assert cutter.end() == ["rot"]


def test_of_a_redrawn_line_the_last_state_stays():
    cutter = LineCutter()

    assert cutter.feed(b"10%\r20%") == []
    assert cutter.feed(b"\r100%\nnext\n") == ["100%", "next"]


def test_a_long_line_is_cut_and_says_by_how_much():
    cutter = LineCutter(limit=10)

    assert cutter.feed(b"0123456789") + cutter.feed(b"abc") + cutter.feed(b"de\n") == ["0123456789… (5 bytes more)"]
    assert cutter.feed(b"short\n") == ["short"]


def test_bytes_that_are_no_text_become_escapes_and_nul_becomes_visible():
    assert LineCutter().feed(b"\xff\x00\n") == ["\\xff\u2400"]


def records_of(path):
    reader = spool.Reader(path)
    return [messages.decode(record) for record in reader.read(1, 10_000, 1 << 24)]


def test_a_full_spool_keeps_its_head_its_tail_and_an_exact_count_between_them(tmp_path):
    output = Output(tmp_path / "1.raw", cap_bytes=spool.RESERVED_BYTES + 1000)
    with open(output.pipe(20), "wb") as writing:
        for number in range(10_000):
            writing.write(b"line %d %s\n" % (number, b"x" * 50))
            if number % 500 == 0:
                writing.flush()
                output.drain()
    while output.open_pipes:
        output.drain()
    output.close()

    lines = records_of(tmp_path / "1.raw")
    gap = next(n for n, line in enumerate(lines) if line.dropped)
    numbers = [int(line.message.split()[1]) for line in lines if not line.dropped]
    assert numbers[:gap] == list(range(gap))
    assert numbers[gap:] == list(range(gap + lines[gap].dropped, 10_000))
    assert len(numbers) - gap > 1000
    assert (tmp_path / "1.raw").stat().st_size < spool.RESERVED_BYTES + 500_000


def test_of_a_log_that_nearly_fits_nothing_is_left_out(tmp_path):
    output = Output(tmp_path / "1.raw", cap_bytes=spool.RESERVED_BYTES + 10)
    with open(output.pipe(20), "wb") as writing:
        for number in range(500):
            writing.write(b"line %d\n" % number)
            writing.flush()
            output.drain()
    while output.open_pipes:
        output.drain()
    output.close()

    assert [line.message for line in records_of(tmp_path / "1.raw")] == [f"line {n}" for n in range(500)]
