"""A secret stands in nothing that a worker sends or keeps, wherever it comes from and whichever way it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker import secret_flows
from tests.worker.kit import Worker
from tests.worker.leaking import leaks_of, texts_in

FLOWS = Path(secret_flows.__file__)
DRAWN = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=12, max_size=40).filter(
    lambda text: len(set(text)) > 8
)


@pytest.fixture
def secretive(start_worker):
    return start_worker(targets=[FLOWS])


def leak(server, source, way, form, seed):
    """Run it; the secret, and all that the worker told of it."""
    fixed = {"default": secret_flows.IN_CODE, "import": secret_flows.AT_IMPORT, "configuration": secret_flows.CONFIGURED}
    more = {"given": seed} if source == "given" else {}
    attempt = server.offer("leaks", source=source, way=way, form=form, seed=seed.encode().hex(), **more)
    server.wait(lambda: attempt.end and (way in QUIET or told_the_way(attempt)))
    return fixed.get(source, seed), attempt


QUIET = {"exit"}


def told_the_way(attempt):
    return any("way" in text for text in texts_in([f for f in everything(attempt) if f["type"] != "RunNamed"]))


def everything(attempt):
    return [fact for stream in attempt.streams.values() for fact in stream]


def nothing_leaks(server, worker, source, way, form, seed):
    secret, attempt = leak(server, source, way, form, seed)

    assert leaks_of(secret, everything(attempt)) == [], attempt.streams
    assert secret not in worker.said()


@pytest.mark.parametrize("way", secret_flows.WAYS)
def test_it_leaves_by_no_way(server, secretive, way):
    sources = list(secret_flows.SOURCES)
    for number, form in enumerate(("plain", "basic 1", "quote")):
        source = sources[(number + len(way)) % len(sources)]
        nothing_leaks(server, secretive, source, way, form, "m&de <in> th\u00e9 \"run\" + 'here' /")


@pytest.mark.parametrize("source", secret_flows.SOURCES)
def test_it_may_come_from_anywhere(server, secretive, source):
    for way in ("print", "descriptor 1", "subprocess stderr", "crash"):
        nothing_leaks(server, secretive, source, way, "plain", "t0ken-of-the-run")


def test_no_combination_lets_it_out(server, secretive):
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True, database=None,
    )  # fmt: skip
    @given(
        source=st.sampled_from(list(secret_flows.SOURCES)),
        way=st.sampled_from(list(secret_flows.WAYS)),
        form=st.sampled_from(list(secret_flows.FORMS)),
        seed=DRAWN,
    )
    def combined(source, way, form, seed):
        nothing_leaks(server, secretive, source, way, form, seed)

    combined()
