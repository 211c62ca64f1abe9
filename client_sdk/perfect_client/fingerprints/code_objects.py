"""What compiled code says, wherever it stands: its form, and the names that it takes from outside."""

from __future__ import annotations

import functools
import opcode
import sys
from types import CodeType
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Set, Tuple

Chain = Tuple[str, ...]  # ("calc", "total"): a global name, and the attributes that are taken from it at once

_REMEMBERED = 4_000  # functions whose code was read: what it says never changes

_OPS = opcode.opmap
_EXTENDED = _OPS["EXTENDED_ARG"]
_IMPORT = _OPS["IMPORT_NAME"]
# How far the argument of an operation is shifted before it is the number of a name: the lower bits are flags.
_GLOBALS = {_OPS["LOAD_GLOBAL"]: 1 if sys.version_info >= (3, 11) else 0, _OPS["LOAD_NAME"]: 0}
_ATTRIBUTES = {_OPS["LOAD_ATTR"]: 1 if sys.version_info >= (3, 12) else 0}
for _name, _table in (("LOAD_FROM_DICT_OR_GLOBALS", _GLOBALS), ("LOAD_METHOD", _ATTRIBUTES)):
    if _name in _OPS:
        _table[_OPS[_name]] = 0
_SILENT = frozenset(_OPS[name] for name in ("CACHE", "PUSH_NULL", "PRECALL") if name in _OPS)
# The compiler notes these in the body of a class (3.13): the line, and names in the order of a set.
_NOTES = frozenset({"__firstlineno__", "__static_attributes__"})


class Import(NamedTuple):
    """An import statement inside a function: ``from ..name import names``."""

    level: int
    name: str
    names: Tuple[str, ...]


@functools.lru_cache(maxsize=_REMEMBERED)
def form(code: CodeType) -> Tuple[Any, ...]:
    """What the code does, in plain tuples; comments, lines and files do not count, docstrings do."""
    return (
        "code",
        code.co_name,
        code.co_code,
        _constants(code),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        getattr(code, "co_exceptiontable", b""),
    )


def _constants(code: CodeType) -> Tuple[Any, ...]:
    hidden = _notes(code) if _NOTES.intersection(code.co_names) else ()
    return tuple(None if number in hidden else _constant(value) for number, value in enumerate(code.co_consts))


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return form(value)
    if isinstance(value, tuple):
        return ("tuple", *map(_constant, value))
    if isinstance(value, frozenset):  # its order is another one in each process
        return ("frozenset", *sorted(repr(_constant(item)) for item in value))
    return hex(value) + "#" if type(value) is int and value.bit_length() > 1000 else value


def _notes(code: CodeType) -> FrozenSet[int]:
    """The numbers of the constants that the compiler notes in a class and that nothing else uses."""
    from dis import get_instructions  # heavy: few functions have a class inside

    before: Optional[int] = None
    notes: Set[int] = set()
    used: List[Optional[int]] = []
    for one in get_instructions(code):
        if one.opname == "STORE_NAME" and one.argval in _NOTES and before is not None:
            notes.add(before)
        before = one.arg if one.opname == "LOAD_CONST" else None
        used.append(before)
    return frozenset(number for number in notes if used.count(number) == 1)


def nested(code: CodeType) -> Iterator[CodeType]:
    """The code and all functions, classes and comprehensions inside it, in the order of the source."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from nested(value)


@functools.lru_cache(maxsize=_REMEMBERED)
def chains(code: CodeType) -> Tuple[Chain, ...]:
    """What the code and all inside it take from the module's names, in the order of the source."""
    found: Dict[Chain, None] = {}
    for one in nested(code):
        for chain in _chains(one):
            found[chain] = None
    return tuple(found)


def _chains(code: CodeType) -> Iterator[Chain]:
    names, raw, high = code.co_names, code.co_code, 0
    chain: List[str] = []
    for place in range(0, len(raw), 2):
        operation = raw[place]
        if operation in _SILENT:
            continue
        argument = raw[place + 1] | high
        high = argument << 8 if operation == _EXTENDED else 0
        if chain and operation in _ATTRIBUTES:
            chain.append(names[argument >> _ATTRIBUTES[operation]])
        elif operation != _EXTENDED:
            if chain:
                yield tuple(chain)
            chain = [names[argument >> _GLOBALS[operation]]] if operation in _GLOBALS else []
    if chain:
        yield tuple(chain)


@functools.lru_cache(maxsize=_REMEMBERED)
def imports(code: CodeType) -> Tuple[Import, ...]:
    """The import statements of the code and of all inside it."""
    found: List[Import] = []
    for one in nested(code):
        if _IMPORT in one.co_code[::2]:
            found.extend(_imports(one))
    return tuple(found)


def _imports(code: CodeType) -> Iterator[Import]:
    from dis import get_instructions  # heavy: few functions import

    given: List[Any] = []
    for one in get_instructions(code):
        if one.opname == "IMPORT_NAME":
            level, names = (given[-2], given[-1]) if len(given) > 1 else (0, ())
            yield Import(level if isinstance(level, int) else 0, str(one.argval), tuple(names or ()))
        elif one.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            given.append(one.argval)
