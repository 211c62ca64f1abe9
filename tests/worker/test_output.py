"""What a run writes is drained, cut into lines, counted, and never in anybody's way."""

from __future__ import annotations

from pathlib import Path

from perfect_client import protocol, spool
from perfect_client.output import LineCutter, Output


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


def test_a_full_spool_keeps_its_head_and_an_exact_count_of_the_rest(tmp_path):
    output = Output(tmp_path / "1.output", cap_bytes=spool.RESERVED_BYTES + 1000)
    with open(output.pipe(20), "wb") as writing:
        writing.write(b"".join(b"line %d\n" % number for number in range(1000)))
        writing.flush()
        for _ in range(3):
            for fd in output.open_pipes:
                output.drain(fd, 1.0)
        writing.write(b"".join(b"late %d\n" % number for number in range(500)))
    for _ in range(3):
        for fd in output.open_pipes:
            output.drain(fd, 2.0)
    output.close(3.0)

    reader = spool.Reader(tmp_path / "1.output")
    records = [protocol.decode(record) for record in reader.read(1, 10_000, 1 << 20)]

    assert [record.message for record in records[:-1]] == [f"line {number}" for number in range(1000)]
    assert records[-1].dropped == 500
