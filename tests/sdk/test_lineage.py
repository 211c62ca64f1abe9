"""A run that resumes another one: what completed with the same inputs and code is answered, the rest runs."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import pytest
from perfect_client import flow, task
from perfect_client.caching import lineage
from perfect_client.execution import executor
from perfect_client.storage.cache_policies import INPUTS, NO_CACHE
from perfect_client.storage.results import FolderStore
from perfect_client.wire import messages
from perfect_client.wire.messages import Ancestor

from tests.sdk.story import Story

Resume = Callable[..., Story]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path, max_bytes=1 << 30, max_age_s=1e9)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFECT_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(store: FolderStore) -> Iterator[Resume]:
    """``run(flow, "run-2", Ancestor("run-1"), x=5)``: execute it as its own process would."""

    def execute(chosen: Any, name: str, *ancestors: Ancestor, attempt: int = 1, **parameters: Any) -> Story:
        order = messages.OfferRun(1, name, chosen.name, parameters, attempt=attempt, lineage=list(ancestors))
        facts: List[Any] = []
        lineage.begin(order.run, order.lineage, store)
        try:
            return Story(executor.execute(chosen, order, facts.append), facts)
        finally:
            lineage.end()

    yield execute
    lineage.end()


def told(story: Story) -> List[str]:
    """What became of each call, by the task's name: ``a CACHED``."""
    names = {fact.task: fact.name for fact in story.started}
    return ["%s %s" % (names[fact.task], fact.outcome) for fact in story.task_ends]


class House:
    """A flow of three tasks, the last of which fails as long as it is told to."""

    def __init__(self, **options: Any) -> None:
        self.ran: List[Any] = []
        self.broken = True

        @task(**options)
        def extract(day: str) -> List[str]:
            self.ran.append("extract")
            return [day, "b"]

        @task(**options)
        def clean(rows: List[str]) -> int:
            self.ran.append("clean")
            return len(rows)

        @task(**options)
        def load(count: int) -> str:
            self.ran.append("load")
            if self.broken:
                raise ValueError("broken")
            return "loaded %d" % count

        @flow
        def nightly(day: str = "monday") -> str:
            return load(clean(extract(day)))

        self.flow = nightly


@pytest.fixture
def house() -> House:
    return House()


def mended(house: House) -> House:
    house.broken = False
    house.ran.clear()
    return house


def test_completed_tasks_are_answered_and_the_rest_runs(run: Resume, house: House) -> None:
    run(house.flow, "run-1")

    story = run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert told(story) == ["extract CACHED", "clean CACHED", "load COMPLETED"]
    assert (house.ran, story.ended.result) == (["load"], "'loaded 2'")
    assert "resuming run run-1: its completed tasks are answered by their results" in story.lines


def test_a_run_that_resumes_nothing_runs_all_of_it(run: Resume, house: House) -> None:
    run(house.flow, "run-1")

    assert told(run(house.flow, "run-2")) == ["extract COMPLETED", "clean COMPLETED", "load FAILED"]


def test_other_inputs_are_other_calls(run: Resume, house: House) -> None:
    run(house.flow, "run-1")

    story = run(mended(house).flow, "run-2", Ancestor("run-1"), day="tuesday")

    assert told(story) == ["extract COMPLETED", "clean COMPLETED", "load COMPLETED"]


def test_a_task_whose_code_changed_runs_again_and_the_log_says_so(run: Resume) -> None:
    def flow_of(amount: int) -> Any:
        space: Dict[str, Any] = {}
        exec("def step(x):\n    return x + %d" % amount, space)
        step = task(space["step"])

        @flow
        def changing() -> Any:
            return step(1)

        return changing

    run(flow_of(1), "run-1")
    story = run(flow_of(2), "run-2", Ancestor("run-1"))

    assert (told(story), story.ended.result) == (["step COMPLETED"], "3")
    assert [line for line in story.lines if line.startswith("task 'step' runs again: step in ")]
    assert [line for line in story.lines if line.endswith(" has changed since run run-1")]


def test_a_helper_that_was_repaired_is_named_once_for_each_task(run: Resume) -> None:
    def flow_of(factor: int) -> Any:
        space: Dict[str, Any] = {"task": task, "__name__": "res", "__file__": "/flows/res.py"}
        exec("def total(n): return n * %d\n@task\ndef compute(n): return total(n)" % factor, space)

        @flow
        def checking() -> int:
            found = space["compute"](1) + space["compute"](2)
            if found > 20:
                raise ValueError("%d is too high" % found)
            return found

        return checking

    assert run(flow_of(10), "run-1").outcome == "FAILED"
    story = run(flow_of(2), "run-2", Ancestor("run-1"))

    assert (told(story), story.ended.result) == (["compute COMPLETED"] * 2, "6")
    again = [line for line in story.lines if "runs again" in line]
    assert again == ["task 'compute' runs again: total in res.py has changed since run run-1"]
    assert told(run(flow_of(2), "run-3", Ancestor("run-2"))) == ["compute CACHED"] * 2


def test_the_tasks_of_one_factory_are_answered_each_by_its_own_result(run: Resume) -> None:
    def calling(*factors: int) -> Any:
        def maker(factor: int) -> Any:
            @task
            def scaled(n: int) -> int:
                return n * factor

            return scaled

        @flow
        def scales() -> List[int]:
            return [maker(factor)(5) for factor in factors]

        return scales

    run(calling(2, 3, 4), "run-1")
    story = run(calling(4, 2, 5), "run-2", Ancestor("run-1"))

    assert (told(story), story.ended.result) == (["scaled CACHED"] * 2 + ["scaled COMPLETED"], "[20, 10, 25]")
    assert not [line for line in story.lines if "runs again" in line]


def test_a_global_that_a_task_changes_does_not_make_it_run_again(run: Resume) -> None:
    """It counts as it was before the first call."""

    def program() -> Any:
        space: Dict[str, Any] = {"task": task, "__name__": "counting"}
        exec("seen = {}\n@task\ndef a(): seen['a'] = 1\n@task\ndef b(): seen['b'] = 1", space)
        return flow(name="counting")(lambda: (space["a"](), space["b"]()))

    run(program(), "run-1")

    assert told(run(program(), "run-2", Ancestor("run-1"))) == ["a CACHED", "b CACHED"]


def test_a_resumed_run_can_be_resumed(run: Resume, house: House) -> None:
    run(house.flow, "run-1")
    run(house.flow, "run-2", Ancestor("run-1"))
    house.ran.clear()

    story = run(mended(house).flow, "run-3", Ancestor("run-2"), Ancestor("run-1"))

    assert house.ran == ["load"]
    assert story.outcome == "COMPLETED"


def test_what_an_interrupted_resume_never_reached_comes_from_the_run_before_it(run: Resume) -> None:
    ran: List[str] = []
    state = {"stop": "b", "fail": "c"}

    @task
    def step(name: str) -> str:
        if state["stop"] == name:
            raise KeyboardInterrupt
        if state["fail"] == name:
            raise ValueError(name)
        ran.append(name)
        return name

    @flow
    def steps() -> None:
        for name in "abc":
            step(name)

    state["stop"] = ""
    run(steps, "run-1")
    lineage_of_2 = [Ancestor("run-1")]
    # The second run has its worker killed after its first task: nothing but that one stands in its file.
    state["stop"] = "b"
    run(steps, "run-2")
    state.update(stop="", fail="")
    ran.clear()

    run(steps, "run-3", Ancestor("run-2"), *lineage_of_2)

    assert ran == ["c"]


def test_a_task_that_is_called_often_is_answered_call_by_call(run: Resume) -> None:
    numbers = iter(range(100))
    broken = [True]

    @task
    def draw() -> int:
        return next(numbers)

    @flow
    def draws() -> List[int]:
        drawn = [draw() for _ in range(3)]
        if broken.pop():
            raise ValueError
        return [*drawn, draw()]

    broken.insert(0, False)
    run(draws, "run-1")
    story = run(draws, "run-2", Ancestor("run-1"))

    assert story.ended.result == "[0, 1, 2, 3]"
    assert told(story) == ["draw CACHED"] * 3 + ["draw COMPLETED"]


def test_threads_are_answered_too(run: Resume) -> None:
    ran: List[int] = []

    @task
    def square(x: int) -> int:
        ran.append(x)
        return x * x

    @flow
    def squares() -> List[int]:
        found: Dict[int, int] = {}
        threads = [threading.Thread(target=lambda x=x: found.update({x: square(x)})) for x in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(found.values())

    first = run(squares, "run-1")
    ran.clear()
    story = run(squares, "run-2", Ancestor("run-1"))

    assert ran == []
    assert story.ended.result == first.ended.result


def test_from_a_task_on_all_run_again(run: Resume, house: House) -> None:
    house.broken = False
    run(house.flow, "run-1")
    house.ran.clear()

    story = run(house.flow, "run-2", Ancestor("run-1", before=2))

    assert told(story) == ["extract CACHED", "clean COMPLETED", "load COMPLETED"]


def test_a_task_inside_an_answered_task_does_not_run(run: Resume) -> None:
    ran: List[str] = []

    @task
    def inner() -> int:
        ran.append("inner")
        return 1

    @task
    def outer() -> int:
        ran.append("outer")
        return inner()

    @flow
    def nested() -> int:
        return outer()

    run(nested, "run-1")
    story = run(nested, "run-2", Ancestor("run-1"))

    assert (told(story), ran) == (["outer CACHED"], ["inner", "outer"][::-1])


def test_a_later_attempt_adds_to_the_same_file(run: Resume, house: House) -> None:
    run(house.flow, "run-1")
    run(mended(house).flow, "run-1", attempt=2)

    story = run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert (house.ran, told(story)[-1]) == ([], "load CACHED")


def test_where_the_results_are_elsewhere_all_runs_again_and_the_log_says_why(run: Resume, house: House) -> None:
    story = run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert story.outcome == "COMPLETED"
    assert [line for line in story.lines if "its results are not on this worker" in line and "run-1" in line]
    assert len([line for line in story.lines if "resuming" in line]) == 1


# ------------------------------------------------------------------------------------------------- what tasks ask for


@pytest.mark.parametrize("options", [{"cache_policy": NO_CACHE}, {"persist_result": False}])
def test_what_is_never_to_be_answered_runs_again(run: Resume, options: Dict[str, Any]) -> None:
    house = House(**options)
    run(house.flow, "run-1")

    run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert house.ran == ["extract", "clean", "load"]


def test_an_expired_result_is_not_an_answer(run: Resume, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(cache_expiration=timedelta(hours=1))
    run(house.flow, "run-1")
    later = time.time() + 3601
    monkeypatch.setattr("perfect_client.caching.caching.time.time", lambda: later)

    story = run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert house.ran == ["extract", "clean", "load"]
    assert "the results of task 'extract' have expired since run run-1: it runs again" in story.lines


def test_what_the_cache_answered_counts_as_completed(run: Resume) -> None:
    house = House(cache_policy=INPUTS)
    run(house.flow, "run-1")
    run(house.flow, "run-2")
    # The cache is emptied: only the file of run-2, which was answered by it, has the results now.
    for file in Path(os.environ["PERFECT_HOME"], "results").iterdir():
        if file.is_file():
            file.unlink()

    run(mended(house).flow, "run-3", Ancestor("run-2"))

    assert house.ran == ["load"]


def test_arguments_without_a_digest_make_a_task_run_again(run: Resume) -> None:
    ran: List[int] = []

    @task
    def work(lock: Any) -> int:
        ran.append(1)
        return 1

    @flow
    def locked() -> int:
        return work(threading.Lock())

    run(locked, "run-1")
    story = run(locked, "run-2", Ancestor("run-1"))

    assert (story.outcome, len(ran)) == ("COMPLETED", 2)


def test_only_small_results_are_kept_unasked(run: Resume, store: FolderStore) -> None:
    def flow_of(**options: Any) -> Any:
        @task(**options)
        def big() -> bytes:
            return b"x" * (lineage.SMALL_BYTES + 1)

        @flow
        def bigs() -> int:
            return len(big())

        return bigs

    unasked, asked = flow_of(), flow_of(persist_result=True)
    run(unasked, "run-1")
    run(asked, "run-2")

    assert told(run(unasked, "run-3", Ancestor("run-1"))) == ["big COMPLETED"]
    assert told(run(asked, "run-4", Ancestor("run-2"))) == ["big CACHED"]


def test_a_machine_that_is_to_keep_nothing_keeps_nothing(run: Resume, store: FolderStore, house: House) -> None:
    store.max_bytes = 0

    assert run(house.flow, "run-1").outcome == "FAILED"
    assert not os.path.exists(lineage.path_of(store, "run-1"))


# ------------------------------------------------------------------------------------------------------------ the file


def line_of(store: FolderStore, name: str, *ancestors: Ancestor) -> lineage.Lineage:
    return lineage.Lineage(name, ancestors, store)


def slots(line: lineage.Lineage, count: int) -> Sequence[bytes]:
    return [line.slot("flow", "task", b"%d" % number) for number in range(count)]


def test_a_torn_file_gives_what_is_whole(store: FolderStore) -> None:
    first = line_of(store, "run-1")
    kept = slots(first, 3)
    for number, slot in enumerate(kept):
        first.keep(slot, b"s" * 16, number, b"result %d" % number)
    first.close()
    path = lineage.path_of(store, "run-1")
    whole = Path(path).read_bytes()

    for length in range(len(whole)):
        Path(path).write_bytes(whole[:length])
        found = [line_of(store, "run-2", Ancestor("run-1")).find(slot) for slot in kept]
        there = [one.data for one in found if one is not None]
        assert there == [b"result 0", b"result 1", b"result 2"][: length * 3 // len(whole)]


def test_a_changed_byte_is_never_an_answer(store: FolderStore) -> None:
    first = line_of(store, "run-1")
    (slot,) = slots(first, 1)
    first.keep(slot, b"s" * 16, 1, b"a result")
    first.close()
    path = Path(lineage.path_of(store, "run-1"))
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        assert line_of(store, "run-2", Ancestor("run-1")).find(slot) is None


def test_results_of_an_older_version_are_no_answers_and_the_log_says_so(
    run: Resume, house: House, store: FolderStore
) -> None:
    """The digest that it kept is that of the task's own function: a helper may have changed since."""
    run(house.flow, "run-1")
    path = Path(lineage.path_of(store, "run-1"))
    older = b""
    for magic, record in records(path.read_bytes()):
        older += b"PfR1" + record[4:] if magic == b"PfR2" else b""
    path.write_bytes(older)

    story = run(mended(house).flow, "run-2", Ancestor("run-1"))

    assert house.ran == ["extract", "clean", "load"]
    assert "task 'extract' runs again: run run-1 was made by an older version of Perfect" in "\n".join(story.lines)


def records(data: bytes) -> List[Tuple[bytes, bytes]]:
    found = []
    while data:
        end = lineage._HEAD.size + lineage._HEAD.unpack_from(data)[2]
        found.append((data[:4], data[:end]))
        data = data[end:]
    return found


def test_what_code_consists_of_is_kept_once(run: Resume, store: FolderStore) -> None:
    @task
    def step(x: int) -> int:
        return x

    @flow
    def steps() -> int:
        return step(1) + step(2)

    run(steps, "run-1")

    kept = records(Path(lineage.path_of(store, "run-1")).read_bytes())
    assert [magic for magic, _ in kept] == [b"PfP2", b"PfR2", b"PfR2"]
    parts = json.loads(kept[0][1][lineage._HEAD.size :])
    assert list(parts)[1:] == ["test_lineage.py:test_what_code_consists_of_is_kept_once.step"]


def test_parts_that_are_torn_or_wrong_are_not_known(store: FolderStore) -> None:
    first = line_of(store, "run-1")
    (slot,) = slots(first, 1)
    first.keep(slot, b"s" * 16, 1, b"a result", parts={"a.py:x": "01"})
    first.close()
    path = Path(lineage.path_of(store, "run-1"))
    whole = path.read_bytes()

    def parts() -> Dict[str, str]:
        later = line_of(store, "run-2", Ancestor("run-1"))
        found = later.find(slot)
        assert found is not None and found.data == b"a result"
        return later.parts_of(found)

    assert parts() == {"a.py:x": "01"}
    path.write_bytes(whole.replace(b"a.py:x", b"a.py:y"))
    assert parts() == {}


def test_a_full_disk_is_borne_and_hides_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(store, "run-1")
    kept = slots(line, 3)
    line.keep(kept[0], b"s" * 16, 1, b"whole")
    write = os.write
    monkeypatch.setattr(lineage.os, "write", lambda fd, data: write(fd, data[:5]) if len(data) > 60 else _full())
    line.keep(kept[1], b"s" * 16, 2, b"x" * 100)
    monkeypatch.setattr(lineage.os, "write", write)
    line.keep(kept[2], b"s" * 16, 3, b"after it")

    later = line_of(store, "run-2", Ancestor("run-1"))

    assert [later.find(slot) is not None for slot in kept] == [True, False, False]
    assert os.path.getsize(lineage.path_of(store, "run-1")) == lineage._HEAD.size + 5


def _full() -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "x" * 500, "é"])
def test_a_runs_id_never_leaves_the_folder(store: FolderStore, name: str) -> None:
    path = lineage.path_of(store, name)

    assert os.path.dirname(os.path.normpath(path)) == os.path.join(store.path, "runs", "others")
    assert len(os.path.basename(path)) <= 64


def test_what_an_earlier_version_left_in_one_folder_is_found(store: FolderStore) -> None:
    first = line_of(store, "run-1")
    slot = slots(first, 1)[0]
    first.keep(slot, b"s" * 16, 1, b"kept")
    first.close()
    os.rename(lineage.path_of(store, "run-1"), os.path.join(store.path, "runs", "run-1"))

    found = line_of(store, "run-2", Ancestor("run-1")).find(slot)

    assert found is not None and found.data == b"kept"


def test_a_file_that_grows_makes_the_folder_of_its_hour_be_counted_anew(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "UNSEEN_BYTES", 1000)
    run = line_of(store, "run-1")
    kept = slots(run, 3)
    run.keep(kept[0], b"s" * 16, 1, b"x")
    folder = os.path.dirname(lineage.path_of(store, "run-1"))
    os.utime(folder, (1, 1))

    run.keep(kept[1], b"s" * 16, 2, b"x" * 100)
    assert os.stat(folder).st_mtime == 1
    run.keep(kept[2], b"s" * 16, 3, b"x" * 1000)

    assert os.stat(folder).st_mtime > 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_not_the_run(store: FolderStore) -> None:
    lineage.begin("run-1", [], store)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lineage.current is None else 1)
    status = os.waitpid(pid, 0)[1]
    lineage.end()

    assert status == 0


def test_keeping_a_result_costs_some_tens_of_microseconds(run: Resume) -> None:
    taken: List[float] = []

    @task
    def nothing(x: int) -> int:
        return x

    @flow
    def many() -> None:
        for _ in range(5):
            start = time.process_time()
            for number in range(200):
                nothing(number)
            taken.append((time.process_time() - start) / 200)

    run(many, "run-1")

    assert min(taken) < 1e-3  # about 60 µs on an idle machine, the recording of the call included
