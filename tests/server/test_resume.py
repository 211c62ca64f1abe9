"""Resuming a run: a new run that knows what it comes from, from every door, and an offer that names its lineage."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from perfect_client.wire import messages as p

from flows.models import Flow
from flows.parameters import Conflict, Missing, Refused
from runs.models import Event, Run, TaskRun
from runs.services import history, requests
from tests.server.conftest import NOW, SPEC, FakeWorker, seconds
from tests.server.test_commands import command


def failed(worker: FakeWorker, run: Run, *, outcome: str = "FAILED") -> Run:
    """A run whose first task completed, while the second one, which calls a third, failed."""
    order = worker.take()
    worker.say(
        order,
        p.RunStarted(seconds(0)),
        p.TaskStarted(seconds(1), 1, "extract", "extract"),
        p.TaskEnded(seconds(2), 1, "COMPLETED"),
        p.TaskStarted(seconds(2), 2, "load", "load"),
        p.TaskStarted(seconds(2), 3, "store", "store a row", parent=2),
        p.TaskEnded(seconds(3), 3, "COMPLETED"),
        p.TaskEnded(seconds(3), 2, "FAILED" if outcome == "FAILED" else "COMPLETED", "ValueError: no"),
        p.RunEnded(seconds(4), outcome, error="" if outcome == "COMPLETED" else "ValueError: no"),
    )
    run.refresh_from_db()
    assert run.state == outcome
    return run


def resume(run: Run, **wish: Any) -> Run:
    return requests.resume(run_id=run.pk, now=NOW, trigger="page", who="ana", **wish)


@pytest.fixture
def broken(worker: FakeWorker, flow: Flow) -> Run:
    run = requests.trigger(
        flow=flow, now=NOW, trigger="page", who="ana", parameters={"limit": 3}, configuration="release", tags=["x"]
    )
    return failed(worker, run)


def test_a_resumed_run_is_a_new_run_like_the_old_one(broken: Run) -> None:
    before = Run.objects.filter(pk=broken.pk).values().get()

    new = resume(broken)

    assert (new.resume_of_id, new.state, new.parameters, new.configuration, new.tags) == (
        broken.pk,
        "PENDING",
        {"limit": 3},
        "release",
        ["sales", "x"],
    )
    assert (new.resume_from, new.resume_before, new.rerun_of_id) == ("", 0, None)
    assert Run.objects.filter(pk=broken.pk).values().get() == before


def test_its_first_event_says_who_resumed_what_from_where(broken: Run) -> None:
    whole, part = resume(broken), resume(broken, from_task="load")

    def told(run: Run) -> list[tuple[str, str]]:
        return list(Event.objects.filter(run=run).values_list("who", "why"))

    assert told(whole) == [("ana", f"resumes run {broken.pk}, triggered from the page")]
    assert told(part) == [("ana", f"resumes run {broken.pk} and runs again from load, triggered from the page")]


def test_the_offer_names_what_is_resumed(broken: Run, worker: FakeWorker) -> None:
    resume(broken)

    assert worker.take().lineage == [p.Ancestor(str(broken.pk))]


def test_the_lineage_goes_back_through_what_was_resumed(broken: Run, worker: FakeWorker) -> None:
    second = failed(worker, resume(broken))
    resume(second)

    assert worker.take().lineage == [p.Ancestor(str(second.pk)), p.Ancestor(str(broken.pk))]


def test_from_a_task_on_means_before_its_number_and_ends_the_lineage(broken: Run, worker: FakeWorker) -> None:
    second = failed(worker, resume(broken))
    third = resume(second, from_task="load")
    assert (third.resume_from, third.resume_before) == ("load", 2)
    assert worker.offers(free=1)[0].lineage == [p.Ancestor(str(second.pk), before=2)]
    third = Run.objects.get(pk=third.pk)
    requests.cancel(run_id=third.pk, now=NOW, who="ana")

    resume(third)

    assert worker.take().lineage == [p.Ancestor(str(third.pk)), p.Ancestor(str(second.pk), before=2)]


@pytest.mark.parametrize("name", ["store", "store a row"])
def test_from_a_task_inside_another_one_means_from_that_one(broken: Run, name: str) -> None:
    new = resume(broken, from_task=name)

    assert (new.resume_from, new.resume_before) == ("load", 2)


def test_a_run_that_resumes_nothing_has_no_lineage(worker: FakeWorker, run: Run) -> None:
    assert worker.take().lineage == []


def test_the_worker_that_has_the_results_comes_first(broken: Run, worker: FakeWorker) -> None:
    idle = FakeWorker(SPEC, slots=8, name="w2")
    idle.join()
    new = resume(broken)

    from runs.ingest import dispatch

    (offer,) = dispatch.offer(free={worker.id: 1, idle.id: 8}, now=NOW)

    assert (offer.worker, offer.order.run) == (worker.id, str(new.pk))


def test_another_worker_takes_it_when_that_one_is_full(broken: Run, worker: FakeWorker) -> None:
    idle = FakeWorker(SPEC, slots=8, name="w2")
    idle.join()
    resume(broken)

    from runs.ingest import dispatch

    (offer,) = dispatch.offer(free={worker.id: 0, idle.id: 8}, now=NOW)

    assert offer.worker == idle.id


def test_a_cached_task_counts_as_done(broken: Run, worker: FakeWorker) -> None:
    new = resume(broken)
    order = worker.take()

    worker.say(
        order, p.RunStarted(seconds(0)), p.TaskStarted(seconds(1), 1, "extract"), p.TaskEnded(seconds(1), 1, "CACHED")
    )

    new.refresh_from_db()
    assert TaskRun.objects.get(run=new, key="extract").state == "CACHED"
    assert new.progress == pytest.approx(25)  # weight 1 of 4


def test_a_resumed_run_teaches_nothing_about_a_whole_one(broken: Run, worker: FakeWorker, flow: Flow) -> None:
    resume(broken)
    order = worker.take()
    worker.say(order, p.RunStarted(seconds(0)), p.RunEnded(seconds(1), "COMPLETED"))

    fresh = requests.trigger(flow=flow, now=NOW, trigger="page", who="ana")
    assert history.learn_for(fresh) == history.NOTHING


def test_only_what_ended_before_its_end_can_be_resumed(worker: FakeWorker, run: Run) -> None:
    with pytest.raises(Conflict, match="PENDING still; cancel it first"):
        resume(run)
    failed(worker, run, outcome="COMPLETED")
    with pytest.raises(Conflict, match="COMPLETED: there is nothing to resume; name a task, or run it again"):
        resume(run)
    assert resume(run, from_task="load").resume_before == 2


def test_a_task_that_was_not_called_is_refused_with_the_nearest(broken: Run) -> None:
    with pytest.raises(Refused, match=r"no call 0 of a task 'extrakt'\. Did you mean 'extract'\?"):
        resume(broken, from_task="extrakt")
    with pytest.raises(Refused, match="no call 1 of a task 'load'"):
        resume(broken, from_task="load", call=1)
    with pytest.raises(Missing):
        requests.resume(run_id=uuid4(), now=NOW, trigger="page", who="ana")


def test_what_an_old_run_leaves_when_it_is_removed(broken: Run, worker: FakeWorker) -> None:
    new = resume(broken)
    broken.delete()

    assert worker.take().lineage == []
    assert Run.objects.get(pk=new.pk).resume_of is None


# -------------------------------------------------------------------------------------------------------------- doors


@pytest.fixture
def pages(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ana"))
    return client


@pytest.mark.parametrize(
    ("words", "first"), [([], ""), (["--from-task", "extract"], "extract"), (["--from-task", "load"], "load")]
)
def test_the_shell_resumes(broken: Run, words: list[str], first: str) -> None:
    ended = command("triggerflow", "--resume", str(broken.pk), *words)

    new = Run.objects.get(resume_of=broken)
    assert (ended.code, new.resume_from, new.trigger) == (0, first, "shell")
    assert str(new.pk) in ended.out.getvalue()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--resume", "5"], "--resume takes a run's whole id"),
        (["--resume", "RUN", "-p", "limit=3"], "give no others"),
        (["--resume", "RUN", "--from-task", "nothing"], "no call 0 of a task 'nothing'"),
        (["Daily Sales ETL", "--from-task", "load"], "triggerflow --resume RUN"),
        ([], "Name a flow, or a run to resume"),
    ],
)
def test_the_shell_refuses_what_cannot_be_resumed(broken: Run, words: list[str], sentence: str) -> None:
    ended = command("triggerflow", *[str(broken.pk) if word == "RUN" else word for word in words])

    assert (ended.code, Run.objects.count()) == (4, 1)
    assert sentence in ended.err.getvalue()


def test_both_runs_link_to_each_other(broken: Run, pages: Client) -> None:
    new = resume(broken, from_task="load")

    old_page = pages.get(f"/runs/{broken.pk}/").content.decode()
    new_page = pages.get(f"/runs/{new.pk}/").content.decode()

    assert f'<dt>Resumed by</dt><dd><a class="link" href="/runs/{new.pk}/">' in old_page
    assert f'<dt>Resumes</dt><dd><a class="link" href="/runs/{broken.pk}/">…{broken.short_id}</a> from load' in new_page


def test_a_run_that_failed_offers_to_be_resumed_and_each_started_task_to_begin_there(
    broken: Run, pages: Client, worker: FakeWorker
) -> None:
    page = pages.get(f"/runs/{broken.pk}/").content.decode()
    assert "Resume from failure" in page
    assert 'aria-label="Rerun from extract"' in page and page.count("Rerun from this task") == 3

    whole = failed(worker, requests.retry(run_id=broken.pk, now=NOW, trigger="page", who="ana"), outcome="COMPLETED")
    page = pages.get(f"/runs/{whole.pk}/").content.decode()
    assert "Resume from failure" not in page
    assert page.count("Rerun from this task") == 3

    waiting = resume(broken)
    page = pages.get(f"/runs/{waiting.pk}/").content.decode()
    assert "Resume from failure" not in page and "Rerun from this task" not in page


def test_a_cached_task_is_told_by_glyph_word_and_colour(broken: Run, worker: FakeWorker, pages: Client) -> None:
    new = resume(broken)
    order = worker.take()
    worker.say(
        order, p.RunStarted(seconds(0)), p.TaskStarted(seconds(1), 1, "extract"), p.TaskEnded(seconds(1), 1, "CACHED")
    )

    page = pages.get(f"/runs/{new.pk}/").content.decode()

    assert '<span class="state CACHED"><span aria-hidden="true">≡</span>Cached</span>' in page
