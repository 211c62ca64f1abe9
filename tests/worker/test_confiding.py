"""What the processes of a run tell of their secrets is heard whole, in time, and by nobody else."""

from __future__ import annotations

import os
import select
import threading

import pytest
from perfect_client.journal import spool
from perfect_client.schema.redaction import MAX_CONFIDED, Hidden
from perfect_client.wire import messages
from perfect_client.worker.pipes import LAST_WORDS_BYTES, Output
from perfect_client.worker.secret_pipe import SecretReceiver, SecretSender

from tests.worker.kit import eventually


@pytest.fixture
def pipe():
    listener = SecretReceiver()
    writing = listener.open()
    yield listener, writing
    listener.close()
    os.close(writing)


SECRETS = ["short", "\u00fc\u2400 \ud83d lone", b"\x00\xff bytes", "long " * 20_000, "", "line\nline"]


def test_secrets_of_any_kind_arrive_as_they_were(pipe):
    listener, writing = pipe
    thread = threading.Thread(target=SecretSender(writing).tell, args=(SECRETS,))
    thread.start()
    heard = []

    eventually(lambda: heard.extend(listener.hear()) or len(heard) >= len(SECRETS))
    thread.join()

    assert heard == SECRETS


def test_processes_and_threads_do_not_mix_what_they_tell(pipe):
    listener, writing = pipe
    teller = SecretSender(writing)
    told = ["%d-%d-" % (child, number) + "x" * 700 * number for child in range(4) for number in range(8)]
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                threads = [threading.Thread(target=teller.tell, args=([s],)) for s in told if s[0] == str(child)]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
            finally:
                os._exit(0)
        children.append(pid)
    heard = []

    eventually(lambda: heard.extend(listener.hear()) or len(heard) >= len(told))

    assert sorted(heard) == sorted(told)
    for pid in children:
        os.waitpid(pid, 0)


def test_nothing_is_written_where_the_pipe_was(tmp_path):
    listener = SecretReceiver()
    writing = listener.open()
    teller = SecretSender(writing)
    with open(tmp_path / "of the code", "w") as file:
        os.dup2(file.fileno(), writing)  # as in a program that closes all descriptors and opens its own

    teller.tell(["t0ken"])

    os.close(writing)
    assert (tmp_path / "of the code").read_text() == ""
    listener.close()


def test_a_line_is_kept_only_when_the_secrets_before_it_are_known(tmp_path):
    """Told, printed, and only then is anybody looking."""
    listener, hidden = SecretReceiver(), Hidden()
    teller = SecretSender(listener.open())
    output = Output(
        tmp_path / "1.output", clean=hidden.without, learn=lambda: [hidden.add(one) for one in listener.hear()]
    )
    pipe = output.pipe(20)
    for number in range(50):
        teller.tell(["t0ken-%d" % number])
        os.write(pipe, b"made t0ken-%d\n" % number)

        (reading,) = output.open_pipes
        output.drain()
    teller.tell(["the-last-one"])
    os.write(pipe, b"the-last-one, without an end")
    os.close(pipe)
    assert output.drain() == []
    assert output.last_words.endswith("made ***\n***, without an end")
    assert output.drain() == [reading]
    output.close()

    records = spool.Reader(tmp_path / "1.output").read(1, 1000, 1 << 20)
    lines = [messages.decode(record).message for record in records]
    assert lines == ["made ***"] * 50 + ["***, without an end"]


@pytest.mark.parametrize("shift", range(0, 24, 5))
def test_last_words_are_cut_beside_secrets_not_within(tmp_path, shift):
    output = Output(tmp_path / "1.output", clean=Hidden(["a-t0ken-of-the-run"]).without)
    one, two = output.pipe(20), output.pipe(30)
    os.write(one, b"." * shift + b"a-t0ken-of-the-run\n" * 400 + b"a-t0ken")
    os.write(two, b"between\n")
    output.drain()
    os.write(one, b"-of-the-run\n")
    os.close(one)
    os.close(two)
    for _ in range(2):
        output.drain()

    assert "t0ken" not in output.last_words and "the-run" not in output.last_words
    assert "between" in output.last_words and len(output.last_words.encode()) <= LAST_WORDS_BYTES
    output.close()


def test_what_a_killed_program_had_half_written_is_masked(tmp_path):
    """A buffer of the C library is written when it is full, in the middle of whatever stands there."""
    output = Output(tmp_path / "1.output", clean=Hidden(["a-t0ken-of-the-run"]).without)
    pipe = output.pipe(20)
    os.write(pipe, b"the key is a-t0ken-of")

    output.drain()
    assert output.last_words == "the key is ***"
    os.close(pipe)
    output.drain()
    output.close()
    assert output.last_words == "the key is ***\n"
    assert b"t0ken" not in (tmp_path / "1.output").read_bytes()


def test_secrets_are_read_after_the_output_that_may_hold_them(tmp_path):
    """A run may make a secret and print it while its supervisor stands between the two pipes."""
    output = Output(tmp_path / "1.output", learn=lambda: unread.append(select.select([reading], [], [], 0)[0]))
    pipe, unread = output.pipe(20), []
    (reading,) = output.open_pipes
    os.write(pipe, b"a line\n")

    output.drain()

    assert unread == [[]]
    os.close(pipe)
    output.close()


def test_so_many_secrets_as_the_pipes_hold_lines_are_known_at_once(tmp_path):
    """The supervisor may hear of thousands of secrets before it reads the first line with one of them."""
    hidden, listener = Hidden(limit=MAX_CONFIDED), SecretReceiver()
    teller = SecretSender(listener.open())
    output = Output(tmp_path / "1.raw", clean=hidden.without, learn=lambda: hidden.add(listener.hear()))
    pipe = output.pipe(20)
    for number in range(3000):
        teller.tell(["key-%d" % number])
        os.write(pipe, b"key-%d\n" % number)
        if number % 500 == 0:
            hidden.add(listener.hear())  # its pipe is read by itself, too

    output.drain()
    os.close(pipe)
    output.drain()
    output.close()

    records = spool.Reader(tmp_path / "1.raw").read(1, 5000, 1 << 24)
    assert {messages.decode(record).message for record in records} == {"***"}
