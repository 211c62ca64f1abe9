"""What compiled code says of itself, on each Python that runs these tests."""

from __future__ import annotations

import types
from typing import Any, List

import pytest
from perfect_client.fingerprints import code_objects
from perfect_client.fingerprints.code_objects import Import

from tests.sdk.story import python


def compiled(source: str) -> types.CodeType:
    """The code of the function ``f``."""
    space: Any = {}
    exec(source, space)
    code: types.CodeType = space["f"].__code__
    return code


def form(source: str) -> str:
    return repr(code_objects.form(compiled(source)))


def test_where_a_function_stands_does_not_count_but_what_it_does() -> None:
    plain = form("def f(x): return {x, 1} | {'a', 'b'}")

    assert plain == form("\n\n# a comment\ndef f(x):\n    return {x, 1} | {'a', 'b'}")
    assert plain != form("def f(x): return {x, 2} | {'a', 'b'}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x, /): pass", "def f(x): pass"),
        ("def f(): return 0.0", "def f(): return 0"),
        ("def f(): return 0.0", "def f(): return -0.0"),
        ("def f(): return 1", "def f(): return True"),
        ("def f(): 'One.'", "def f(): 'Two.'"),
        ("def f(): return 0x%s" % ("f" * 5000), "def f(): return 0x%s" % ("e" * 5000)),
    ],
)
def test_what_differs_has_another_form(one: str, other: str) -> None:
    assert form(one) != form(other)


NESTED = """
def f():
    class A:
        def g(self):
            self.b = self.c = self.a = self.zz = {number}
    return A
"""


def test_a_class_inside_a_function_may_move_too() -> None:
    plain = code_objects.form(compiled(NESTED.format(number=1)))

    assert plain == code_objects.form(compiled("\n\n\n" + NESTED.format(number=1).replace("class", "\n    class")))
    assert plain != code_objects.form(compiled(NESTED.format(number=2)))


def test_every_process_has_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from perfect_client.fingerprints import code_objects\n%s\nprint(code_objects.form(f.__code__))"
        % NESTED.format(number="{'x', 'y'}")
    )
    found = set()
    for seed in "1234":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        found.add(python("-c", source).stdout)

    assert len(found) == 1


MANY = ["    many.append(name%d.attribute%d)" % (number, number) for number in range(400)]


@pytest.mark.parametrize(
    ("lines", "chains"),
    [
        (["return calc.total(1)"], [("calc", "total")]),
        (["return a.b.c.d + a"], [("a", "b", "c", "d"), ("a",)]),
        (["x = calc", "return x.total()"], [("calc",)]),
        (["return [g(x) for x in rows if h(x)]"], [("rows",), ("g",), ("h",)]),
        (["def inner():", "    return deep", "return inner"], [("deep",)]),
        (["class A(Base):", "    size = LIMIT", "return A"], [("Base",), ("LIMIT",)]),
        (
            ["with a.b() as c:", "    try:", "        return d(c)", "    except E.F:", "        raise G from None"],
            [("a", "b"), ("d",), ("E", "F"), ("G",)],
        ),
        (["x = json", "x.load(1)", "return x.dump"], [("json",)]),
        (["return lambda x=DEFAULT: x.total"], [("DEFAULT",)]),
        (
            ["async def inner():", "    async for x in source():", "        yield await step(x)", "return inner"],
            [("source",), ("step",)],
        ),
        (["return f'{a.b!r:>{width}}'"], [("a", "b"), ("width",)]),
        (["global counter", "counter = 1", "return counter"], [("counter",)]),
        (["many = []", *[line.strip() for line in MANY]], [("name%d" % n, "attribute%d" % n) for n in range(400)]),
    ],
)
def test_the_names_that_are_taken_from_the_module(lines: List[str], chains: Any) -> None:
    found = code_objects.chains(compiled("def f():\n" + "\n".join("    " + line for line in lines)))

    assert sorted(chain for chain in found if chain != ("__name__",)) == sorted(chains)  # it is read by each class


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import calc", Import(0, "calc", ())),
        ("import pkg.calc as c", Import(0, "pkg.calc", ())),
        ("from pkg import calc, other", Import(0, "pkg", ("calc", "other"))),
        ("from . import calc", Import(1, "", ("calc",))),
        ("from ..pkg.calc import total as t", Import(2, "pkg.calc", ("total",))),
    ],
)
def test_the_imports_of_a_function(statement: str, found: Import) -> None:
    code = compiled("def f():\n    x = 1, 2, 3\n    def g():\n        %s\n    return g" % statement)

    assert code_objects.imports(code) == (found,)
