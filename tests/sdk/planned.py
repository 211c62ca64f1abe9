"""Flows in many styles, read by ``test_discovery``. Nothing here is ever run."""

from __future__ import annotations

import asyncio
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from multiprocessing.pool import ThreadPool
from typing import Any

from perfect_client import flow, progress, task

from tests.sdk import planned_elsewhere as elsewhere
from tests.sdk.planned_elsewhere import fetch_all


@task(weight=2, estimated_time=300, name="Extract it", description="Reads.")
def extract(x: Any = None) -> Any:
    return x


@task
def clean(x: Any = None) -> Any:
    return x


@task
def load(x: Any = None) -> Any:
    progress(0.5)
    return hidden(x)


@task
def hidden(x: Any = None) -> Any:
    return x


STEPS = [extract, clean, load]
BY_NAME = {"extract": extract, "load": load}
PAIRS = [("first", clean), ("second", extract)]


@flow
def in_order() -> Any:
    raw = extract()
    tidy = clean(raw)
    return load(tidy)


@flow
def nested_calls() -> Any:
    return load(clean(extract()))


@flow
def in_loops(items: Any) -> None:
    extract()
    for item in items:
        clean(item)
    while items:
        load()


@flow
def in_comprehension(items: Any) -> Any:
    return [clean(item) for item in extract(items)], {load(i): 1 for i in items}


@flow
def in_branches(flag: bool) -> Any:
    if flag:
        extract()
    elif clean():
        pass
    else:
        load()
    return hidden() if flag else None


@flow
def in_try() -> None:
    try:
        extract()
    except ValueError:
        clean()
    finally:
        load()


@flow
def in_with() -> None:
    with open("x") as file:
        extract(file)
    assert clean()
    print(load())


def helper(x: Any) -> Any:
    return deeper(clean(x))


def deeper(x: Any) -> Any:
    return load(x)


@flow
def through_helpers() -> None:
    helper(extract())


@flow
def helper_in_loop() -> None:
    deeper(1)
    for _ in range(3):
        deeper(2)


@flow
def through_another_module() -> None:
    fetch_all()
    elsewhere.store()


def ping(n: int) -> None:
    extract()
    pong(n)


def pong(n: int) -> None:
    clean()
    ping(n)


@flow
def in_a_cycle() -> None:
    ping(1)


class Pipeline:
    source = extract

    def __init__(self, writer: Any = None) -> None:
        self.writer = load
        self.checker = clean

    def run(self) -> None:
        self.read()
        self.checker()
        self.writer()

    def read(self) -> Any:
        return type(self).__name__, self.source()

    @task
    def own(self) -> None: ...

    @classmethod
    def make(cls) -> Any:
        extract()
        return cls()

    @staticmethod
    def tidy() -> None:
        clean()

    def __call__(self) -> None:
        self.own()


class Special(Pipeline):
    def read(self) -> Any:
        super().read()
        return hidden()


PIPELINE = Pipeline()


@flow
def with_an_instance() -> None:
    PIPELINE.own()
    PIPELINE()


@flow
def with_a_made_instance() -> None:
    pipeline = Pipeline()
    pipeline.run()


@flow
def with_a_subclass() -> None:
    Special().run()


@flow
def with_class_members() -> None:
    Pipeline.make()
    Pipeline.tidy()


@flow
def nested_functions() -> None:
    def first() -> None:
        extract()

    def second() -> None:
        clean()

    second()
    first()
    later = lambda: load()  # noqa: E731
    later()


@flow
def never_called() -> None:
    def first() -> None:
        extract()

    clean()


@flow
def partials() -> None:
    bound = partial(extract, 1)
    bound()
    functools.partial(clean)()


@flow
def passed_by_name(items: Any) -> None:
    list(map(extract, items))
    with ThreadPoolExecutor() as pool:
        pool.submit(clean, 1)
        list(pool.map(load, items))


@flow
def passed_to_a_pool(items: Any) -> None:
    ThreadPool().imap_unordered(lambda item: clean(item), items)
    extract()


@flow
def passed_to_a_helper() -> None:
    apply_all([extract, clean], 1)
    apply_one(load)


def apply_all(steps: Any, x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


def apply_one(step: Any) -> Any:
    return step()


@flow
def over_a_list() -> None:
    for step in STEPS:
        step()


@flow
def over_a_literal() -> None:
    for step in (load, extract):
        step()


@flow
def over_pairs() -> None:
    for _, step in PAIRS:
        step()


@flow
def by_name(name: str) -> None:
    BY_NAME["load"]()
    BY_NAME[name]()


@flow
def over_items() -> None:
    for _, step in BY_NAME.items():
        step()
    for step in itertools.chain(STEPS):
        step()


@flow
def renamed() -> None:
    step = extract
    step()
    one, two = clean, load
    two()
    one()


@flow
def chosen(flag: bool) -> None:
    (extract if flag else clean)()
    step = None or load
    step()


@flow
def a_default(step: Any = extract) -> None:
    step()


@flow
def shadowed(extract: Any) -> None:
    extract()
    clean()


def factory(step: Any) -> Any:
    def made(x: Any) -> Any:
        return step(x)

    return made


@flow
def from_a_factory() -> None:
    factory(extract)(1)


CLOSED = factory(load)


@flow
def from_a_closure() -> None:
    CLOSED(1)


def traced(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@traced
def traced_helper() -> None:
    extract()


@lru_cache(None)
def cached_helper() -> None:
    clean()


@flow
@traced
def decorated() -> None:
    traced_helper()
    cached_helper()
    load()


@flow
def tasks_made_inside() -> None:
    @task(weight=4, estimated_time=50, name="Made inside")
    def inner(x: int) -> int:
        """Does it."""
        return x

    @task
    def bare() -> None: ...

    for number in range(3):
        inner(number)
    bare()


@flow
async def asynchronous(items: Any) -> None:
    await elsewhere.download()
    await asyncio.gather(*(elsewhere.download(item) for item in items))
    async with items as many:
        async for item in many:
            await elsewhere.download_more(item)


@flow
def sub_flow() -> None:
    clean()


@flow
def with_a_sub_flow() -> None:
    extract()
    sub_flow()


@flow
def submits() -> None:
    first = extract.submit()
    many = clean.with_options(retries=2).map([1, 2], wait_for=[first])
    for one in many:
        load.submit(one)


@flow
def only_mentioned() -> None:
    print(extract, isinstance(clean, object))
    repr(load)


@flow
def imports_inside() -> None:
    from tests.sdk.planned_elsewhere import store

    store()


@flow
def same_name_twice() -> None:
    extract()
    elsewhere.extract()
    extract()


@flow
def walrus_and_slices(items: Any) -> None:
    if (found := extract(items)) and found[1:2]:
        STEPS[1]()


@flow
def keyword_only(*, step: Any = load) -> None:
    apply_one(step=step)


@flow
def starred() -> None:
    asyncio.gather(*[clean(x) for x in range(3)], extract())


@flow
def from_sorted(items: Any) -> Any:
    return sorted(items, key=lambda item: extract(item))


@flow
def no_tasks() -> int:
    return 1


@flow
def given_to_a_task() -> None:
    load(extract)
