"""Transactions: what was done inside is committed together, or undone together, the last first."""

from __future__ import annotations

import ast
import asyncio
import logging
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from perfect_client import ConfigurationError, flow, task
from perfect_client.caching import lineage
from perfect_client.caching.transactions import (
    CommitMode,
    IsolationLevel,
    Transaction,
    atransaction,
    get_transaction,
    transaction,
)
from perfect_client.core import middleware

from tests.sdk.story import Story

Execute = Callable[..., Story]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path))
    yield tmp_path


class Diary:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: List[str] = []

    def task(self, name: str, fails: bool = False, **options: Any) -> Any:
        def act(*_: Any) -> str:
            self.lines.append(name)
            if fails:
                raise ValueError(name)
            return name

        act.__name__ = name
        made = task(**options)(act)
        made.on_commit(lambda txn: self.lines.append("commit " + name))
        made.on_rollback(lambda txn: self.lines.append("undo " + name))
        return made


@pytest.fixture
def diary() -> Diary:
    return Diary()


def test_tasks_are_committed_in_order_when_the_block_ends(diary: Diary, execute: Execute) -> None:
    a, b = diary.task("a"), diary.task("b")

    @flow
    def whole() -> None:
        with transaction() as txn:
            a()
            b()
            assert txn.is_active() and len(txn.children) == 2 and txn.children[0].is_staged()
        assert txn.is_committed()
        diary.lines.append("after")

    assert execute(whole).outcome == "COMPLETED"
    assert diary.lines == ["a", "b", "commit a", "commit b", "after"]


def test_tasks_are_rolled_back_last_first_when_the_block_raises(diary: Diary, execute: Execute) -> None:
    a, b, bad = diary.task("a"), diary.task("b"), diary.task("bad", fails=True)

    @flow
    def whole() -> None:
        try:
            with transaction() as txn:
                a()
                b()
                bad()
        finally:
            assert txn.is_rolled_back()

    story = execute(whole)

    assert (story.outcome, story.ended.error) == ("FAILED", "ValueError: bad")
    assert diary.lines == ["a", "b", "bad", "undo b", "undo a"]


def test_outside_a_block_a_task_commits_itself_and_a_failed_one_undoes_what_it_called(diary: Diary) -> None:
    inner = diary.task("inner")

    @task
    def outer() -> None:
        inner()
        raise KeyError

    outer.on_rollback(lambda txn: diary.lines.append("undo outer"))

    inner()
    with pytest.raises(KeyError):
        outer()

    assert diary.lines == ["inner", "commit inner", "inner", "undo inner"]


def test_values_go_down_to_hooks_and_are_copies(diary: Diary) -> None:
    seen: List[Any] = []

    @task
    def writes() -> None:
        own = get_transaction()
        assert own is not None and own.parent is not None
        own.set("own", 1)

    @writes.on_rollback
    def undo(txn: Transaction) -> None:
        seen.append((txn.get("rows"), txn.get("own"), txn.get("none", "default")))
        txn.get("rows").append(9)
        with pytest.raises(ValueError, match="unknown key: missing"):
            txn.get("missing")

    with pytest.raises(RuntimeError):
        with transaction() as txn:
            txn.set("rows", [1, 2])
            writes()
            raise RuntimeError

    assert seen == [([1, 2], 1, "default")]
    assert txn.get("rows") == [1, 2]
    assert get_transaction() is None


def test_a_hook_that_fails_is_logged_and_does_not_stop_the_others(diary: Diary, execute: Execute) -> None:
    a, b, c = diary.task("a"), diary.task("b"), diary.task("c")
    for hook in (b.on_rollback, b.on_commit):

        @hook
        def breaks(txn: Transaction) -> None:
            raise OSError("no such luck")

    @flow
    def undone() -> None:
        with transaction():
            a(), b(), c()
            raise RuntimeError

    @flow
    def done() -> None:
        with transaction():
            a(), b(), c()

    told = [line.message.split("\n") for line in execute(undone).logged]
    assert [(lines[0], lines[-1]) for lines in told] == [
        ("The rollback hook 'breaks' failed", "OSError: no such luck"),
        ("Flow 'undone' failed: RuntimeError", "RuntimeError"),
    ]
    assert diary.lines == ["a", "b", "c", "undo c", "undo b", "undo a"]
    diary.lines.clear()
    assert [line.level for line in execute(done).logged] == [logging.ERROR]
    assert diary.lines == ["a", "b", "c", "commit a", "commit b", "commit c"]


# -------------------------------------------------------------------------------------------------------------- nested


@pytest.mark.parametrize(
    ("inner", "fails", "expected"),
    [
        (None, False, ["a", "b", "commit a", "commit b"]),
        (None, True, ["a", "b", "undo b", "undo a"]),
        (CommitMode.EAGER, True, ["a", "b", "commit b", "undo a"]),
        (CommitMode.LAZY, False, ["a", "b", "commit a", "commit b"]),
        (CommitMode.OFF, False, ["a", "b", "commit a", "commit b"]),
    ],
)
def test_a_nested_block_is_decided_with_the_one_around_it(
    diary: Diary, inner: Optional[CommitMode], fails: bool, expected: List[str]
) -> None:
    a, b = diary.task("a"), diary.task("b")

    def whole() -> None:
        with transaction():
            a()
            with transaction(commit_mode=inner):
                b()
            if fails:
                raise KeyError

    if fails:
        with pytest.raises(KeyError):
            whole()
    else:
        whole()
    assert diary.lines == expected


def test_a_nested_block_that_raises_takes_the_one_around_it_with_it(diary: Diary) -> None:
    a, b = diary.task("a"), diary.task("b")

    with transaction() as outer:
        a()
        with pytest.raises(KeyError):
            with transaction():
                b()
                raise KeyError
        late = diary.task("late")
        late()

    assert outer.is_rolled_back()
    assert diary.lines == ["a", "b", "undo b", "undo a", "late", "undo late"]


def test_with_mode_off_only_a_call_commits(diary: Diary) -> None:
    a = diary.task("a")

    with transaction(commit_mode=CommitMode.OFF):
        a()
    with transaction(commit_mode=CommitMode.OFF) as txn:
        a()
        assert txn.commit() is True
        assert (txn.commit(), txn.rollback()) == (False, False)

    assert diary.lines == ["a", "undo a", "a", "commit a"]


def test_submitted_and_mapped_tasks_are_part_of_the_block(diary: Diary) -> None:
    a = diary.task("a")

    @flow
    def whole() -> None:
        with transaction():
            a.submit().result()
            a.map([1, 2]).result()
            raise KeyError

    with pytest.raises(KeyError):
        whole()

    assert sorted(diary.lines) == ["a"] * 3 + ["undo a"] * 3


def test_a_task_that_ends_after_its_block_follows_it(diary: Diary) -> None:
    goes_on = threading.Event()
    a = diary.task("a")

    @task
    def waits() -> None:
        goes_on.wait(30)

    @flow
    def whole() -> None:
        with transaction():
            late = a.submit(waits.submit())
        goes_on.set()
        late.result()

    whole()

    assert diary.lines == ["a", "commit a"]


def test_asynchronous_blocks_tasks_and_hooks(diary: Diary) -> None:
    @task
    async def later(name: str) -> None:
        await asyncio.sleep(0)
        diary.lines.append(name)

    @later.on_rollback
    async def undo(txn: Transaction) -> None:
        await asyncio.sleep(0)
        diary.lines.append("undo %s" % txn.get("reason"))

    @flow
    async def whole() -> None:
        async with atransaction() as txn:
            txn.set("reason", "test")
            await asyncio.gather(later("x"), later("y"))
            with transaction():
                await later("z")
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(whole())

    assert sorted(diary.lines[:2]) == ["x", "y"]
    assert diary.lines[2:] == ["z"] + ["undo test"] * 3


def test_a_task_that_is_cached_is_not_staged(diary: Diary) -> None:
    a = diary.task("a", cache_key_fn=lambda context, arguments: "same")
    a()

    with pytest.raises(KeyError):
        with transaction():
            a()
            raise KeyError

    assert diary.lines == ["a", "commit a"]


def test_hooks_go_along_with_other_options(diary: Diary) -> None:
    a = diary.task("a").with_options(name="other", retries=1)

    a()

    assert diary.lines == ["a", "commit a"]


# ---------------------------------------------------------------------------------------------------------------- keys


def test_a_committed_key_is_known_afterwards_with_its_value() -> None:
    with transaction(key="report-2024") as first:
        assert not first.is_committed() and first.read() is None
        first.stage({"rows": 7})
    with transaction(key="report-2024") as second:
        assert second.is_committed()
        assert second.read() == {"rows": 7}
        second.stage("ignored")
    with transaction(key="report-2024", overwrite=True) as third:
        assert third.is_active()
        third.stage("new")

    assert transaction(key="report-2024").read() == "new"


@pytest.mark.parametrize("how", ["raises", "not written", "off"])
def test_a_key_that_was_not_committed_is_not_known(how: str) -> None:
    options: Dict[str, Any] = {"not written": {"write_on_commit": False}, "off": {"commit_mode": CommitMode.OFF}}
    try:
        with transaction(key="k", **options.get(how, {})) as txn:
            txn.stage(1)
            if how == "raises":
                raise KeyError
    except KeyError:
        pass

    with transaction(key="k") as again:
        assert not again.is_committed()


def test_a_value_that_cannot_be_kept_rolls_back(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    a = diary.task("a")

    with transaction(key="k") as txn:
        a()
        txn.stage(lambda: None)

    assert txn.is_rolled_back() and diary.lines == ["a", "undo a"]
    assert "The value staged for transaction 'k' cannot be kept" in caplog.text


def test_a_store_of_ones_own(tmp_path: Path) -> None:
    with transaction(key="k", store=tmp_path / "elsewhere") as txn:
        txn.stage(5)

    assert transaction(key="k", store=tmp_path / "elsewhere").read() == 5
    assert transaction(key="k").read() is None


def test_serializable_transactions_of_a_key_run_one_after_another() -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def run() -> None:
        with transaction(key="k", isolation_level=IsolationLevel.SERIALIZABLE, overwrite=True) as txn:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.02)
            with lock:
                inside[0] -= 1
            txn.stage(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert most == [1] and not any(thread.is_alive() for thread in threads)


def test_what_cannot_be_is_refused() -> None:
    class Store:
        read = write = exists = remove = lambda self, *_: False

    with pytest.raises(ConfigurationError, match="SERIALIZABLE takes a folder"):
        with transaction(key="k", store=Store(), isolation_level=IsolationLevel.SERIALIZABLE):
            pass
    with pytest.raises(ConfigurationError, match=r"transaction\(key=…\) takes a string, not 5"):
        transaction(key=5)  # type: ignore[arg-type]
    with transaction() as txn:
        with pytest.raises(RuntimeError, match="entered once"):
            txn.__enter__()
    assert get_transaction() is None


# ------------------------------------------------------------------------------------ tasks of a block with a key


@pytest.mark.parametrize("with_hooks", [False, True])
@pytest.mark.parametrize("way", ["call", "submit", "await", "outside of a flow", "kept for resuming"])
def test_the_tasks_of_a_committed_key_are_answered_from_it(
    with_hooks: bool, way: str, execute: Execute, diary: Diary, home: Path
) -> None:
    @task
    def act(name: str) -> str:
        diary.lines.append(name)
        return name.upper()

    @task
    async def act_later(name: str) -> str:
        return act.fn(name)

    used = act_later if way == "await" else act
    if with_hooks:
        used.on_commit(lambda txn: diary.lines.append("commit"))

    def block(names: str) -> List[str]:
        with transaction(key="k"):
            return [act.submit(name).result() if way == "submit" else act(name) for name in names]

    @flow(name="Whole")
    def whole(names: str) -> List[str]:
        return block(names)

    @flow(name="Later")
    async def later(names: str) -> List[str]:
        async with atransaction(key="k"):
            return [await act_later(name) for name in names]

    def run(names: str) -> Any:
        if way == "outside of a flow":
            return block(names)
        if way == "kept for resuming":
            lineage.begin("0123456789abcdef", [])
        try:
            story = execute(later if way == "await" else whole, {"names": names})
        finally:
            lineage.end()
        diary.lines.append("%s" % "+".join(end.outcome for end in story.task_ends))
        return ast.literal_eval(story.ended.result)

    assert run("aab") == ["A", "A", "B"]
    first, diary.lines = diary.lines, []
    assert run("aabc") == ["A", "A", "B", "C"]

    assert [line for line in first if len(line) == 1] == ["a", "a", "b"]
    assert [line for line in diary.lines if len(line) == 1] == ["c"]
    if way != "outside of a flow":
        assert diary.lines[-1] == "CACHED+CACHED+CACHED+COMPLETED"
    assert (middleware.keeper, middleware.of_all) == (None, False)


def test_the_tasks_of_a_key_that_was_not_committed_or_is_overwritten_run_again(diary: Diary) -> None:
    a = diary.task("a")

    with pytest.raises(KeyError):
        with transaction(key="k"):
            a()
            raise KeyError
    with transaction(key="k"):
        a()
    with transaction(key="k", overwrite=True):
        a()
    with transaction(key="k"):
        a()
    with transaction(key="other"):
        a()
    with transaction(key="k", overwrite=True):
        pass
    with transaction(key="k"):
        a()

    assert diary.lines.count("a") == 5


def test_what_cannot_be_kept_or_compared_runs_again(diary: Diary) -> None:
    @task
    def gives_a_lambda() -> Any:
        diary.lines.append("lambda")
        return lambda: None

    @task
    def takes(value: Any) -> None:
        diary.lines.append("lock")

    for _ in range(2):
        with transaction(key="k"):
            gives_a_lambda()
            takes(threading.Lock())

    assert diary.lines == ["lambda", "lock"] * 2
