"""Every kind of thing that a task may name; prints the digest of its code."""

import abc
import collections
import contextlib
import datetime
import decimal
import enum
import functools
import operator
import re
import threading
import types
import typing
import weakref
from dataclasses import dataclass, field

from perfect_client import flow, task
from perfect_client.fingerprints import fingerprints


class Row(typing.NamedTuple):
    a: int = 1
    b: str = "x"


Pair = collections.namedtuple("Pair", "x y")


class Typed(typing.TypedDict, total=False):
    a: int


class Shape(typing.Protocol):
    def m(self) -> int: ...


class Above(abc.ABC):
    @abc.abstractmethod
    def m(self) -> int: ...


class Below(Above):
    __slots__ = ("q", "r")

    def m(self) -> int:
        return 1


class Flags(enum.IntFlag):
    X = 1
    Y = 2


class Name(str, enum.Enum):
    A = "a"
    B = "b"


@dataclass(frozen=True, order=True)
class Data:
    x: int = 1
    y: "typing.List[Row]" = field(default_factory=list)


G = typing.TypeVar("G")


class Box(typing.Generic[G]):
    def get(self) -> G: ...


class Meta(type):
    def __call__(cls, *args: typing.Any) -> typing.Any:
        return super().__call__(*args)


class Made(metaclass=Meta):
    def m(self) -> typing.Any:
        return self


@functools.total_ordering
class Ordered:
    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ordered) and self.n == other.n

    def __lt__(self, other: "Ordered") -> bool:
        return self.n < other.n


class Methods:
    @functools.singledispatchmethod
    def f(self, x: object) -> int:
        return 1

    @f.register(int)
    def _f_int(self, x: int) -> int:
        return 2

    bound = functools.partialmethod(lambda self, k: k, 3)

    class Inner:
        z: typing.ClassVar[typing.Any] = {"p", "q"}


@contextlib.contextmanager
def within() -> typing.Iterator[int]:
    yield 1


upper = operator.methodcaller("upper", 1)
longest = functools.partial(max, key=len)
LOCAL, EVENT, WEAK = threading.local(), threading.Event(), weakref.WeakKeyDictionary()
CONFIG = types.SimpleNamespace(a=1, b={"x", "y", "z"})
PROXY = types.MappingProxyType({"a": 1})
PATTERN = re.compile("a+", re.I)
WHEN = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
MONEY = decimal.Decimal("1.5")
DATUM, ORDERED, STATE = Data(5), Ordered(3), Flags.X | Flags.Y
KINDS = {Above, Below, Data, Flags.X, Name.A, "a", "b", "c", frozenset({"x", "y"})}


@task
async def other() -> int:
    return 1


@flow
def sub() -> typing.Any:
    return other()


@task
def names(n: "Data", m: typing.Optional[Shape] = None) -> typing.Any:
    made = Row(), Pair(1, 2), Typed, Below(), Flags, Name, Data(), Box(), Made(), Ordered(1), Methods
    held = upper, longest, LOCAL, EVENT, CONFIG, PROXY, PATTERN, WHEN, MONEY, DATUM, ORDERED, STATE, WEAK, KINDS
    with within():
        return made, held, other, sub


found = fingerprints.fingerprint_of(names)
assert len(found.parts) > 50
print(found.digest.hex())
