"""The code of a task is what its function names in the user's own files: what may change its result changes it."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import task
from perfect_client.fingerprints import code_objects, fingerprints

from tests.sdk.story import python

FILES = {
    "calc.py": '''
"""Numbers."""
from __future__ import annotations
import enum
import math as m
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial, singledispatch
from math import floor as rounded
from pathlib import Path
import threading

HERE = Path(__file__).resolve().parent
RATE = 3
TABLE = {"eur": 1, "usd": [2, 3], ("x", 1): {4, 5, "six"}}
HANDLERS = {"a": lambda x: x + 1}
LOCK = threading.Lock()
UNUSED = 1

def total(n):
    return n * RATE + TABLE["eur"] + HANDLERS["a"](n)

def unrelated(n):
    return n

@lru_cache(maxsize=None)
def cached(n):
    return n + 7

@singledispatch
def shown(x):
    return "any"

@shown.register(int)
def _shown_int(x):
    return "int"

def ping(n):
    return pong(n - 1) if n else 0

def pong(n):
    return ping(n - 1) if n else 1

class Base:
    def price(self):
        return 10

class Item(Base):
    tax = 2

    def __init__(self, n):
        self.n = n

    @property
    def net(self):
        return self.n

    @cached_property
    def gross(self):
        return self.n + 19

    @staticmethod
    def unit():
        return "piece"

    def price(self):
        return super().price() + self.tax

@dataclass
class Row:
    a: int = 1
    b: list = field(default_factory=lambda: [9])

class Colour(enum.Enum):
    RED = 1
    GREEN = 2

class Scaler:
    def __init__(self, by):
        self.by = by

    def __call__(self, n):
        return n * self.by

def added(a, b):
    return a + b

scale = Scaler(6)
plus = partial(added, 5)
''',
    "pkg/__init__.py": "from .inner import exported\n",
    "pkg/inner.py": "from . import deep\ndef exported(n):\n    return deep.deeper(n)\n",
    "pkg/deep.py": "def deeper(n):\n    return n + 100\n",
    "stars.py": "def starred(n):\n    return n + 200\n",
    "lazy.py": "from pkg.lazier import farther\ndef late(n):\n    return farther(n) + 300\n",
    "pkg/lazier.py": "def farther(n):\n    return n + 400\n",
    "work.py": '''
from __future__ import annotations
import calc
import calc as c
import json
from calc import Colour, Item, Row as R, LOCK
from pkg import exported
from stars import *
from perfect_client import task
import functools

LIMIT = 100

def wrapped(fn):
    @functools.wraps(fn)
    def around(*args, **kwargs):
        return fn(*args, **kwargs) + 11
    return around

@wrapped
def helper(n, by=2, *, more=12):
    return [calc.total(x) for x in range(n * by)]

def hinted(item: "Item") -> int:
    return 1

def load(n):
    return n

def maker(factor, names=("a", "b")):
    @task
    def scaled(n: int, extra=13, *, key=14) -> int:
        """Scale."""
        import lazy
        from pkg.deep import deeper
        def inner(x):
            return x * factor + LIMIT
        with LOCK:
            json.load
        return [helper(inner(n)), exported(1), starred(2), c.cached(3), c.shown(4), c.ping(5), Item(1).price(), R(),
                Colour.RED, c.scale(2), c.plus(1), lazy.late(1), c.rounded(1.5), names, c.HERE]
    return scaled

class Service:
    def __init__(self, base):
        self.base = base

    @task
    def compute(self, n):
        return self.other(n)

    def other(self, n):
        return n + self.base

triple = maker(3)
''',
}


class Edit(NamedTuple):
    """A change of one file; ``counts``: it may change what the task ``work.triple`` returns."""

    file: str
    old: str
    new: str
    counts: bool
    named: str = ""


EDITS = [
    Edit("work.py", "helper(inner(n))", "helper(inner(n) + 1)", True, "maker.scaled in work.py"),
    Edit("work.py", "extra=13", "extra=15", True, "maker.scaled in work.py"),
    Edit("work.py", "key=14", "key=15", True, "maker.scaled in work.py"),
    Edit("work.py", "triple = maker(3)", "triple = maker(4)", True),
    Edit("work.py", 'names=("a", "b")', 'names=["a", "b"]', True),
    Edit("work.py", "by=2", "by=3", True, "helper in work.py"),
    Edit("work.py", "more=12", "more=13", True, "helper in work.py"),
    Edit("work.py", "+ 11", "+ 12", True, "helper in work.py"),
    Edit("work.py", "LIMIT = 100", "LIMIT = 101", True, "LIMIT in work.py"),
    Edit("work.py", "x * factor", "x ** factor", True, "maker.scaled in work.py"),
    Edit("calc.py", "RATE = 3", "RATE = 4", True, "RATE in calc.py"),
    Edit("calc.py", '"usd": [2, 3]', '"usd": [2, 4]', True, "TABLE in calc.py"),
    Edit("calc.py", '"six"', '"seven"', True, "TABLE in calc.py"),
    Edit("calc.py", "x + 1", "x + 2", True, "<lambda> in calc.py"),
    Edit("calc.py", "return n * RATE", "return RATE + n * RATE", True, "total in calc.py"),
    Edit("calc.py", "return n + 7", "return n + 8", True, "cached in calc.py"),
    Edit("calc.py", 'return "int"', 'return "whole"', True, "_shown_int in calc.py"),
    Edit("calc.py", "@shown.register(int)", "@shown.register(float)", True, "shown in calc.py"),
    Edit("calc.py", "ping(n - 1) if n else 1", "ping(n - 2) if n else 1", True, "pong in calc.py"),
    Edit("calc.py", "return 10", "return 11", True, "Base.price in calc.py"),
    Edit("calc.py", "tax = 2", "tax = 3", True, "Item in calc.py"),
    Edit("calc.py", "return self.n\n", "return -self.n\n", True, "Item.net in calc.py"),
    Edit("calc.py", "self.n + 19", "self.n + 7", True, "Item.gross in calc.py"),
    Edit("calc.py", '"piece"', '"dozen"', True, "Item.unit in calc.py"),
    Edit("calc.py", "self.n = n", "self.n = n + 1", True, "Item.__init__ in calc.py"),
    Edit("calc.py", "a: int = 1", "a: int = 2", True),
    Edit("calc.py", "lambda: [9]", "lambda: [8]", True),
    Edit("calc.py", "RED = 1", "RED = 3", True),
    Edit("calc.py", "n * self.by", "n ** self.by", True, "Scaler.__call__ in calc.py"),
    Edit("calc.py", "Scaler(6)", "Scaler(7)", True, "scale in calc.py"),
    Edit("calc.py", "partial(added, 5)", "partial(added, 6)", True, "plus in calc.py"),
    Edit("calc.py", "return a + b", "return a - b", True, "added in calc.py"),
    Edit("calc.py", "floor as rounded", "ceil as rounded", True),
    Edit("pkg/deep.py", "n + 100", "n + 101", True),
    Edit("pkg/inner.py", "deep.deeper(n)", "deep.deeper(-n)", True, "exported in inner.py"),
    Edit("stars.py", "n + 200", "n + 201", True, "starred in stars.py"),
    Edit("lazy.py", "+ 300", "+ 301", True, "lazy.py"),
    Edit("pkg/lazier.py", "n + 400", "n + 401", True, "lazier.py"),
    # What does not count.
    Edit("work.py", "LIMIT = 100", "# a comment\n\n\nLIMIT = 100  # another", False),
    Edit("work.py", "def inner(x):", "# about it\n\n        def inner(x):  # here", False),
    Edit("work.py", "def load(n):\n    return n", "def load(n):\n    return -n", False),
    Edit("work.py", 'item: "Item") -> int:\n    return 1', 'item: "Item") -> int:\n    return 2', False),
    Edit("work.py", "return n + self.base", "return n - self.base", False),
    Edit("calc.py", '"""Numbers."""', '"""Other words."""', False),
    Edit("calc.py", "def unrelated(n):", "def renamed(n):", False),
    Edit("calc.py", "UNUSED = 1", "UNUSED = 2\nMORE = [1]", False),
    Edit("calc.py", "def total(n):\n", "def total(n):\n    # counts all\n\n", False),
    Edit("calc.py", '{"eur": 1, "usd": [2, 3]', '{"usd": [2, 3], "eur": 1', False),
    Edit("calc.py", "import math as m\n", "", False),
    Edit("stars.py", "def starred", "\n\n\ndef starred", False),
    Edit("lazy.py", "def late", "\n\n# later\ndef late", False),
    Edit("pkg/inner.py", "from . import deep\n", "from . import deep\ndef also():\n    return 1\n", False),
]
MOVED = ("calc.py", "def unrelated(n):\n    return n\n", "class Base:")  # a function changes its place in the file


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = list(sys.path)
    yield tmp_path_factory.mktemp("projects")
    sys.path[:] = path
    forget()


_numbers = count()


def written(root: Path, *edits: Edit) -> Path:
    """A new folder with the files, after the edits."""
    folder = root / ("project-%d" % next(_numbers))
    for name, text in FILES.items():
        for edit in edits:
            if edit.file == name and edit.old in text:
                text = text.replace(edit.old, edit.new, 1)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        os.utime(folder / name, (1e9, 1e9))
    return folder


def forget() -> None:
    for name in FILES:
        sys.modules.pop(name.replace("/__init__.py", "").replace(".py", "").replace("/", "."), None)
    sys.path[:] = [place for place in sys.path if "project-" not in place]
    importlib.invalidate_caches()


def loaded(folder: Path) -> Any:
    """The module ``work`` of the folder, imported anew with all that it imports."""
    forget()
    sys.path.insert(0, str(folder))
    return importlib.import_module("work")


def fingerprint(folder: Path) -> fingerprints.Fingerprint:
    return fingerprints.fingerprint_of(loaded(folder).triple)


@pytest.fixture(scope="module")
def plain(folders: Path) -> fingerprints.Fingerprint:
    return fingerprint(written(folders))


def test_the_same_files_elsewhere_are_the_same_code(folders: Path, plain: fingerprints.Fingerprint) -> None:
    assert fingerprint(written(folders)) == plain


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: "%s: %s" % (edit.file, edit.new[:30]))
def test_each_change_counts_that_may_change_the_result(
    folders: Path, plain: fingerprints.Fingerprint, edit: Edit
) -> None:
    assert edit.old in FILES[edit.file]

    changed = fingerprint(written(folders, edit))

    assert (changed.digest != plain.digest) == edit.counts
    if edit.named:
        assert edit.named in fingerprints.changes(plain.parts, changed.parts)


@settings(max_examples=60)
@given(chosen=st.lists(st.sampled_from(EDITS), max_size=6, unique_by=lambda edit: (edit.file, edit.old)))
def test_any_changes_count_together_if_one_of_them_does(
    folders: Path, plain: fingerprints.Fingerprint, chosen: List[Edit]
) -> None:
    changed = fingerprint(written(folders, *[edit for edit in chosen if not edit.counts]))
    assert changed.digest == plain.digest

    changed = fingerprint(written(folders, *chosen))
    assert (changed.digest != plain.digest) == any(edit.counts for edit in chosen)


def test_a_function_may_move_within_its_file_and_to_another_one(folders: Path, plain: fingerprints.Fingerprint) -> None:
    text = FILES["calc.py"]
    moved = written(folders)
    body = "def ping(n):\n    return pong(n - 1) if n else 0\n"
    assert body in text
    (moved / "calc.py").write_text(text.replace(body, "") + "\n" + body)
    (moved / "stars2.py").write_text(FILES["stars.py"])
    (moved / "stars.py").write_text("from stars2 import *\n")

    assert fingerprint(moved).digest == plain.digest


ASKED = """
import json, sys
sys.path.insert(0, sys.argv[1])
if "first" in sys.argv:
    import lazy, pkg.lazier, stars
if "main" in sys.argv:
    import runpy
    space = runpy.run_path(sys.argv[1] + "/work.py", run_name="__main__")
    sys.modules["__main__"].__dict__.update(space)
    triple = space["triple"]
else:
    from work import triple
from perfect_client.fingerprints import fingerprints
found = fingerprints.fingerprint_of(triple)
print(json.dumps([found.digest.hex(), found.bound.hex(), found.parts]))
"""


def asked(folder: Path, *how: str) -> Tuple[Any, ...]:
    return tuple(json.loads(python("-c", ASKED, str(folder), *how).stdout))


def test_a_package_with_flows_may_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is own code for its own tasks; other packages are not."""

    def digest(number: int, edits: Dict[str, str]) -> bytes:
        site = tmp_path / str(number) / "site-packages"
        files = {
            "installed_flows/__init__.py": "",
            "installed_flows/calc.py": "import foreign\ndef total(n):\n    return foreign.one(n) * 10",
            "installed_flows/res.py": "from perfect_client import task\nfrom . import calc\n@task\n"
            "def t(n):\n    return calc.total(n)",
            "foreign.py": "def one(n):\n    return n",
        }
        for name, text in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(edits.get(name, text))
            sys.modules.pop(name.replace("/__init__.py", "").replace(".py", "").replace("/", "."), None)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        return fingerprints.fingerprint_of(importlib.import_module("installed_flows.res").t).digest

    plain = digest(1, {})
    assert digest(2, {}) == plain
    assert digest(3, {"installed_flows/calc.py": "def total(n):\n    return n * 2"}) != plain
    assert digest(4, {"foreign.py": "def one(n):\n    return -n"}) == plain


def test_every_process_finds_the_same(
    folders: Path, plain: fingerprints.Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its hash seed, its folder, what it has imported before, and whether the file is ``__main__``."""
    found = []
    for seed, how in (("1", ()), ("2", ("first",)), ("3", ("main",)), ("4", ("main", "first"))):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.append(asked(written(folders), *how))

    assert found == [(plain.digest.hex(), plain.bound.hex(), plain.parts)] * 4


# ------------------------------------------------------------------------------------------------ factories and methods


def test_the_tasks_of_one_factory_are_told_apart_by_what_they_close_over(folders: Path) -> None:
    work = loaded(written(folders))
    two, three = fingerprints.fingerprint_of(work.maker(2)), fingerprints.fingerprint_of(work.maker(3))

    assert two.digest != three.digest
    assert two.bound != three.bound
    assert three == fingerprints.fingerprint_of(work.triple)


def test_what_a_factory_passed_is_no_code(folders: Path) -> None:
    """It tells the tasks apart in a cache by inputs alone, which does not look at code."""
    repaired = Edit("work.py", "helper(inner(n))", "helper(-inner(n))", True)

    assert fingerprint(written(folders)).bound == fingerprint(written(folders, repaired)).bound != b""


def test_a_method_counts_with_its_class(folders: Path) -> None:
    one = loaded(written(folders)).Service.compute
    other = loaded(written(folders, Edit("work.py", "n + self.base", "n - self.base", True))).Service.compute

    assert fingerprints.fingerprint_of(one).digest != fingerprints.fingerprint_of(other).digest


def test_a_hint_that_names_an_own_class_counts_it(folders: Path) -> None:
    one = loaded(written(folders)).hinted
    other = loaded(written(folders, Edit("calc.py", "tax = 2", "tax = 3", True))).hinted

    assert fingerprints.of_function(one).digest != fingerprints.of_function(other).digest


def test_a_function_that_was_put_in_the_place_of_another_counts(
    folders: Path, plain: fingerprints.Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = loaded(written(folders))
    monkeypatch.setattr(sys.modules["calc"], "total", lambda n: 0)

    assert fingerprints.fingerprint_of(work.triple).digest != plain.digest


def test_a_callable_object_counts_with_its_state() -> None:
    class Scaled:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, n: int) -> int:
            return n * self.by

    two, three = task(Scaled(2)), task(Scaled(3))

    assert fingerprints.fingerprint_of(two).digest != fingerprints.fingerprint_of(three).digest
    assert fingerprints.fingerprint_of(two).bound != fingerprints.fingerprint_of(three).bound
    assert fingerprints.fingerprint_of(two).digest == fingerprints.fingerprint_of(task(Scaled(2))).digest


# --------------------------------------------------------------------------------------------------- what is left alone


class Touchy:
    """Whoever touches it hears of it."""

    def __repr__(self) -> str:
        raise AssertionError("asked for its text")

    __reduce__ = __eq__ = __hash__ = __iter__ = __len__ = __repr__  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("asked for %s" % name)

    @property
    def value(self) -> int:
        raise AssertionError("asked for its value")

    @property
    def __class__(self) -> Any:
        raise AssertionError("asked for its class")


class TouchyDict(Dict[str, int]):
    def __iter__(self) -> Iterator[str]:
        raise AssertionError

    items = keys = values = __len__ = __iter__  # type: ignore[assignment]


TOUCHY = Touchy()
TOUCHY_DICT = TouchyDict(a=1)
CONTAINERS: Dict[str, Any] = {"list": [TOUCHY], "set": {1}, "file": open(os.devnull), "generator": (x for x in "ab")}  # noqa: SIM115
LARGE = {number: [number] for number in range(300_000)}
DEEP: List[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]
RING: List[Any] = []
RING.append(RING)


@task
def touches(n: Any = TOUCHY) -> Any:
    return TOUCHY, TOUCHY_DICT, CONTAINERS, LARGE, DEEP, RING, 10**6000, LARGER


LARGER = 10**6000


def test_no_code_of_the_user_runs_and_nothing_large_is_walked() -> None:
    start = time.perf_counter()

    found = fingerprints.fingerprint_of(touches)

    assert time.perf_counter() - start < 0.2  # about 2 ms; walking them would take seconds
    assert "test_fingerprints.py:TOUCHY" in found.parts


def test_a_set_counts_by_its_members_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from perfect_client.fingerprints import fingerprints
class A: pass
class B: pass
def f(): pass
KINDS = {A, B, f, int, "x", ("y", 1), frozenset("abc"), None, 2.5}
TABLE = {A: 1, B: 2, int: 3, "k": 4}
def t(x): return x in KINDS and x in {"p", "q", "r"} and TABLE
print(fingerprints.of_function(t).digest.hex())
"""
    found = set()
    for seed in "1234":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.add(python("-c", source).stdout)

    assert len(found) == 1


def test_what_cannot_be_read_is_like_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(code: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(code_objects, "form", broken)

    assert fingerprints.of_function(lambda: 1).digest != fingerprints.of_function(lambda: 1).digest


def test_a_module_that_changed_while_the_process_runs_is_like_nothing_else(folders: Path) -> None:
    """What was imported and what the file says now may differ."""
    loaded(written(folders))
    file = Path(importlib.import_module("lazy").__file__ or "")
    file.write_text(FILES["lazy.py"])

    assert len({fingerprint_of_one_that_imports_lazy() for _ in range(2)}) == 2


def fingerprint_of_one_that_imports_lazy() -> bytes:
    space: Dict[str, Any] = {"__name__": "elsewhere"}
    exec("def t():\n    import lazy\n    return lazy.late(1)", space)
    fingerprints._remembered.clear()
    return fingerprints.of_function(space["t"]).digest


def test_the_parts_are_bounded_and_the_nearest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(length: int, last: str) -> Any:
        lines = ["def f%d(): return f%d()" % (number, number + 1) for number in range(length)]
        space: Dict[str, Any] = {"__name__": "chained"}
        exec("\n".join([*lines, "def f%d(): return %s" % (length, last)]), space)
        return fingerprints.of_function(space["f0"])

    assert chain(fingerprints.MAX_PARTS - 2, "1").digest != chain(fingerprints.MAX_PARTS - 2, "2").digest
    assert chain(fingerprints.MAX_PARTS, "1").digest == chain(fingerprints.MAX_PARTS, "2").digest


def test_globals_count_as_they_were_before_the_first_task_of_the_module() -> None:
    space: Dict[str, Any] = {"__name__": "counting", "task": task}
    source = "seen = []\n@task\ndef a():\n    pass\n@task\ndef b():\n    return seen"
    exec(source, space)
    fresh = fingerprints.fingerprint_of(space["b"])
    exec(source, space := {"__name__": "counting", "task": task})
    fingerprints.fingerprint_of(space["a"])
    space["seen"].append(1)

    assert fingerprints.fingerprint_of(space["b"]) == fresh


def test_fifty_helpers_take_a_few_milliseconds() -> None:
    lines = ["C%d = %d" % (number, number) for number in range(51)]
    for number in range(50):
        lines.append(
            "def h%d(n, k=%d):\n    rows = [x * C%d for x in range(n)]\n    for row in rows:\n        if row > k:\n"
            "            n += row\n    return h%d(n) if n else json.dumps(rows)" % (number, number, number, number + 1)
        )
    source = "\n".join(["import json", *lines, "def h50(n): return n"])
    taken = []
    for _ in range(5):
        space: Dict[str, Any] = {"__name__": "fifty"}
        exec(source, space)
        start = time.process_time()
        assert len(fingerprints.of_function(space["h0"]).parts) == 102
        taken.append(time.process_time() - start)

    assert min(taken) < 0.1  # about 3 ms on an idle machine; a busy or old one takes ten times as long


def test_a_name_that_stands_for_something_else_by_now_counts() -> None:
    """As in a notebook, where one cell is run again and another is not."""
    space: Dict[str, Any] = {"__name__": "cells", "task": task}
    exec("FACTOR = 2\ndef helper(n):\n    return n * FACTOR\ndef other(n):\n    return n", space)

    def digest(cell: str = "") -> bytes:
        exec(cell + "\n@task\ndef t(n):\n    return helper(n)", space)
        return fingerprints.fingerprint_of(space["t"]).digest

    first = digest()
    assert digest() == first
    assert digest("FACTOR = 3") != first
    assert digest("FACTOR = 2") == first
    assert digest("helper = other") != first


def test_which_name_stands_for_which_function_counts() -> None:
    def digest(x: str, y: str, z: str) -> bytes:
        space: Dict[str, Any] = {"__name__": "aliases"}
        exec("def f(): return 1\ndef g(): return 2\nx, y, z = %s, %s, %s\ndef t(): return x, y, z" % (x, y, z), space)
        return fingerprints.of_function(space["t"]).digest

    assert len({digest(*names) for names in ("ffg", "fgf", "fgg", "gff", "gfg", "ggf")}) == 6
    assert digest(*"fgg") == digest(*"fgg")


KINDS = str(Path(__file__).with_name("kinds.py"))


def test_every_kind_of_thing_counts_alike_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for seed in "123":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.add(python(KINDS).stdout)
    found.add(python("-c", "import sys; sys.path.insert(0, %r); import kinds" % os.path.dirname(KINDS)).stdout)

    assert len(found) == 1


# ----------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({"calc.py:total": "1"}, {"calc.py:total": "2"}, "total in calc.py"),
        ({"a.py:x": "1", "a.py:y": "1"}, {"a.py:x": "2", "a.py:y": "2"}, "x and y in a.py"),
        ({"a.py:x": "1", "b.py:y": "1"}, {"a.py:x": "2", "b.py:y": "2"}, "x in a.py and y in b.py"),
        ({"a.py:x": "1", "lazy.py:": "1"}, {"a.py:x": "1", "lazy.py:": "2"}, "lazy.py"),
        ({"a.py:x": "1"}, {"a.py:x": "1", "a.py:new": "1"}, "new in a.py"),
        ({"a.py:x": "1", "a.py:old": "1"}, {"a.py:x": "1"}, "old in a.py"),
        (dict.fromkeys("abcdef", "1"), dict.fromkeys("abcdef", "2"), "a, b, c and 3 more"),
        (
            {"the version of Python": "3.8", "a.py:x": "1"},
            {"the version of Python": "3.9", "a.py:x": "2"},
            "the version of Python",
        ),
        ({}, {"the version of Python": "3.9", "a.py:x": "2"}, ""),
        ({}, {}, ""),
    ],
)
def test_what_changed_is_named(then: Dict[str, str], now: Dict[str, str], words: str) -> None:
    assert fingerprints.changes(then, now) == words


# -------------------------------------------------------------------------------------------------------------- ahead

CHANGING = {
    "an item of a dict": ("RATES = {'eur': 1}", "RATES['eur']", "m.RATES['eur'] = 2"),
    "a list in a tuple": ("PAIRS = ([1],)", "PAIRS[0]", "m.PAIRS[0].append(2)"),
    "a namespace": ("import types\nNAMES = types.SimpleNamespace(eur=1)", "NAMES.eur", "m.NAMES.eur = 2"),
    "a number": ("LIMIT = 1", "LIMIT", "m.LIMIT = 2"),
    "a function": ("def rate(): return 1\ndef other(): return 2", "rate()", "m.rate = m.other"),
    "a name that was not there": ("def other(): return 2", "rate()", "m.rate = m.other"),
    "an attribute that was not there": ("import apart", "apart.rate", "m.apart.rate = 2"),
    "a number in another module": ("import apart", "apart.LIMIT", "m.apart.LIMIT = 2"),
    "an attribute of a class": ("class Rate:\n    eur = 1", "Rate.eur", "m.Rate.eur = 2"),
    "a method": (
        "class Rate:\n    def eur(self): return 1\ndef other(self): return 2",
        "Rate().eur()",
        "m.Rate.eur = m.other",
    ),
    "an attribute of an object": ("class Rate:\n    pass\nRATE = Rate()", "RATE", "m.RATE.eur = 2"),
    "what a function closes over": (
        "def make(n):\n    def rate(): return n\n    return rate\nrate = make(1)",
        "rate()",
        "m.rate.__closure__[0].cell_contents = 2",
    ),
    "a default": ("def rate(seen=[1]): return seen", "rate()", "m.rate.__defaults__[0].append(2)"),
    "a keyword's default": ("def rate(*, n=1): return n", "rate()", "m.rate.__kwdefaults__['n'] = 2"),
    "an argument that is bound": (
        "import functools\nrate = functools.partial(max, [1])",
        "rate()",
        "m.rate.args[0].append(2)",
    ),
    "a variant": (
        "import functools\n@functools.singledispatch\ndef rate(n): return 1\ndef other(n): return 2",
        "rate(1)",
        "m.rate.register(int)(m.other)",
    ),
    "a name that becomes None": ("", "rate", "m.rate = None"),
    "a None that goes": ("rate = None", "rate", "del m.rate"),
    "an attribute that becomes None": ("import apart", "apart.rate", "m.apart.rate = None"),
    "the code of a function": (
        "def rate(): return 1\ndef other(): return 2",
        "rate()",
        "m.rate.__code__ = m.other.__code__",
    ),
    "the defaults of a function": ("def rate(n=1): return n", "rate()", "m.rate.__defaults__ = (2,)"),
    "the keyword's defaults of a function": (
        "def rate(*, n=3): return n",
        "rate()",
        "m.rate.__kwdefaults__ = {'n': 2}",
    ),
    "what a function wraps": ("def rate(): return 1\ndef other(): return 2", "rate()", "m.rate.__wrapped__ = m.other"),
    "the function of a task": ("def other(): return 2\n@task\ndef rate(): return 1", "rate()", "m.rate.fn = m.other"),
    "what is remembered": (
        "import functools\n@functools.lru_cache\ndef rate(): return 1\ndef other(): return 2",
        "rate()",
        "m.rate.__wrapped__ = m.other",
    ),
    "a module that is found later": (
        "def rate():\n    import later\n    return later.f()",
        "rate()",
        "import sys; sys.path.append(m.__file__[:-8] + 'lib')",
    ),
    "a class that a hint names": (
        "class Other:\n    eur = 2\ndef rate(n: 'Rate'): return n.eur",
        "rate(n)",
        "m.Rate = m.Other",
    ),
}


@pytest.fixture
def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., fingerprints.Fingerprint]]:
    """The fingerprint of a task that returns ``value``, with its code read ahead or not; then ``change`` is made."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "apart.py").write_text("LIMIT = 1")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "later.py").write_text("def f(): return 1")
    os.utime(tmp_path / "lib" / "later.py", (1e9, 1e9))  # older than this process

    def fingerprint(source: str, value: str, change: str, read_ahead: bool) -> fingerprints.Fingerprint:
        lines = ["from perfect_client import flow, task", source, "@task", "def convert(n):", "    return " + value]
        (tmp_path / "ahead.py").write_text("\n".join([*lines, "@flow", "def prices():", "    return convert(1)"]))
        for name in ("ahead", "apart", "later"):
            sys.modules.pop(name, None)
        sys.path[:] = [place for place in sys.path if not place.endswith("/lib")]
        forget()
        importlib.invalidate_caches()
        module = importlib.import_module("ahead")
        if read_ahead:
            fingerprints.read_ahead([module.prices])
        exec(change, {"m": module})
        return fingerprints.fingerprint_of(module.convert)

    yield fingerprint
    fingerprints._ahead.clear()


@pytest.mark.parametrize(("source", "value", "change"), CHANGING.values(), ids=CHANGING)
def test_what_changes_after_the_code_was_read_ahead_counts(
    ahead: Callable[..., fingerprints.Fingerprint], source: str, value: str, change: str
) -> None:
    """A flow may do it before its first task, in place too; the forks of one import have read the code before."""
    before, after = ahead(source, value, "", True), ahead(source, value, change, True)

    assert before == ahead(source, value, "", False)
    assert after == ahead(source, value, change, False)
    assert after.digest != before.digest


def test_runs_are_spared_what_cannot_change(
    ahead: Callable[..., fingerprints.Fingerprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import json\nfrom pathlib import Path\nLIMIT, PLACE = 1, Path('/data')\ndef rate(n=(1, 'a')): return n"
    walked: List[Any] = []
    walk = fingerprints._walk
    monkeypatch.setattr(fingerprints, "_walk", lambda root, package: (walked.append(root), walk(root, package))[1])

    ahead(source, "json.dumps([LIMIT, str(PLACE), rate()])", "", True)

    assert len(walked) == 1


def test_what_was_found_at_the_first_call_stays(ahead: Callable[..., fingerprints.Fingerprint]) -> None:
    """A task that changes what a later one uses would else make that one's results useless for a resume."""
    first = ahead("LIMIT = 1", "LIMIT", "", True)
    module = sys.modules["ahead"]
    module.__dict__["LIMIT"] = 2

    assert fingerprints.fingerprint_of(module.convert.with_options(name="other")) == first
