"""What names in a function's source stand for, as far as that can be known without running it."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import sys
import types
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from perfect_client.engine.decorators import Flow, Task
from perfect_client.fingerprints.user_code import is_installed, is_own

MAX_MEMBERS = 200  # of a container; more hardly ever are tasks

Definition = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda]


class Known(NamedTuple):
    """An object that exists already: a global, a default, a member of a module or class."""

    value: Any


class Made(NamedTuple):
    """An instance of ``cls`` that only the run will make."""

    cls: type


class Method(NamedTuple):
    """A function taken from an instance or a class."""

    function: Any
    owner: Any


class Above(NamedTuple):
    """``super()`` in a method that ``cls`` defines."""

    instance: Any
    cls: type


class Local(NamedTuple):
    """A nested function or a lambda; ``task`` holds the options of ``@task`` on it."""

    node: Definition
    scope: Scope
    qualname: str
    code: Optional[types.CodeType]
    task: Optional[Dict[str, Any]] = None


class Many(NamedTuple):
    """One of these, or a container of these."""

    values: Tuple[Any, ...]


Value = Union[None, Known, Made, Method, Above, Local, Many]  # None: nothing is known


class Scope:
    """The names of one function, within those of the functions around it and its module."""

    def __init__(
        self, parent: Optional[Scope], outside: Dict[str, Any], qualname: str, code: Optional[types.CodeType]
    ) -> None:
        self.names: Dict[str, Value] = {}
        self.parent, self.outside, self.qualname, self.code = parent, outside, qualname, code
        self.owner: Optional[type] = None  # the class that defines the function
        self.returned: List[Value] = []

    def get(self, name: str) -> Value:
        scope: Optional[Scope] = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        if name in self.outside:
            return Known(self.outside[name])
        return Known(getattr(builtins, name)) if hasattr(builtins, name) else None


def free_variables(fn: types.FunctionType) -> Dict[str, Any]:
    """The globals of a function and what it closes over."""
    names = dict(fn.__globals__)
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            names.pop(name, None)
    return names


def any_of(values: List[Value]) -> Value:
    """One value for several; what is unknown among them is forgotten."""
    flat: Dict[Any, Value] = {}
    for value in values:
        for one in value.values if isinstance(value, Many) else (value,):
            if one is not None:
                flat[identity(one)] = one
    return next(iter(flat.values())) if len(flat) == 1 else Many(tuple(flat.values())) if flat else None


def identity(value: Value) -> Any:
    """Equal for the same value, and hashable."""
    if isinstance(value, Many):
        return tuple(identity(one) for one in value.values)
    if isinstance(value, Method):
        return (id(value.function), identity(value.owner))
    return id(value.node) if isinstance(value, Local) else id(value[0]) if value is not None else None


def elements(value: Value) -> Value:
    """What iterating over a value may give."""
    if isinstance(value, Many):
        return any_of([elements(one) if _is_container(one) else one for one in value.values])
    return any_of([Known(item) for item in _members(value) if is_of_interest(item)])


def _is_container(value: Value) -> bool:
    return isinstance(value, Known) and isinstance(value.value, (list, tuple, set, frozenset, dict))


def _members(value: Value) -> List[Any]:
    if not isinstance(value, Known) or not _is_container(value):
        return []
    items = value.value.values() if isinstance(value.value, dict) else value.value
    return [item for _, item in zip(range(MAX_MEMBERS), items)]


def is_of_interest(item: Any, depth: int = 2) -> bool:
    """Whether a task might be reached through this object."""
    if isinstance(item, (Task, Flow, types.FunctionType, types.MethodType, functools.partial, type)):
        return True
    return depth > 0 and any(is_of_interest(inner, depth - 1) for inner in _members(Known(item)))


def column(value: Value, index: int) -> Value:
    """Item ``index`` of a tuple or list, or of each of them."""
    if isinstance(value, Many):
        return any_of([column(one, index) if _is_container(one) else one for one in value.values])
    if isinstance(value, Known) and isinstance(value.value, (list, tuple)) and -1 < index < len(value.value):
        return Known(value.value[index])
    return elements(value)


# ------------------------------------------------------------------------------------------------------- attributes


def attribute(value: Value, name: str) -> Value:
    """``value.name``; no code of the user runs, so a property or ``__getattr__`` tells nothing."""
    if isinstance(value, Many):
        return any_of([attribute(one, name) for one in value.values])
    if isinstance(value, Above):
        classes = _classes_after(value)
        found = next((vars(cls)[name] for cls in classes if name in vars(cls)), None)
        return _bound(found, value.instance)
    if isinstance(value, Made):
        return _bound(inspect.getattr_static(value.cls, name, None), value)
    if not isinstance(value, Known):
        return None
    if isinstance(value.value, types.ModuleType):
        module = value.value
        found = vars(module).get(name, sys.modules.get("%s.%s" % (module.__name__, name)))
        return None if found is None else Known(found)
    return _bound(inspect.getattr_static(value.value, name, None), value)


def _classes_after(above: Above) -> Tuple[type, ...]:
    instance = above.instance
    cls = instance.cls if isinstance(instance, Made) else instance.value if isinstance(instance, Known) else above.cls
    order = cls.__mro__ if isinstance(cls, type) else type(cls).__mro__
    return order[order.index(above.cls) + 1 :] if above.cls in order else ()


def _bound(found: Any, owner: Value) -> Value:
    if found is None:
        return None
    on_class = isinstance(owner, Known) and isinstance(owner.value, type)
    if isinstance(found, staticmethod):
        return Known(found.__func__)
    if isinstance(found, classmethod):
        return Method(found.__func__, owner)
    if isinstance(found, property):
        return None
    return Method(found, owner) if isinstance(found, types.FunctionType) and not on_class else Known(found)


def class_that_defines(owner: Value, function: Any) -> Optional[type]:
    """The class in an owner's order of resolution whose own attribute the function is."""
    cls = owner.cls if isinstance(owner, Made) else owner.value if isinstance(owner, Known) else object
    for one in (cls if isinstance(cls, type) else type(cls)).__mro__:
        for item in vars(one).values():
            if any(function is found for found in (item, getattr(item, "__func__", None), getattr(item, "fn", None))):
                return one
    return None


# ----------------------------------------------------------------------------------------------------------- source


def definitions_of(code: types.CodeType, module: Dict[str, Any]) -> List[Definition]:
    """The nodes that a function was made from: several for lambdas in one line, none without source."""
    source = "".join(linecache.getlines(code.co_filename, module))
    return _parsed(source).get((code.co_firstlineno, code.co_name), []) if source else []


@functools.lru_cache(maxsize=8)
def _parsed(source: str) -> Dict[Tuple[int, str], List[Definition]]:
    found: Dict[Tuple[int, str], List[Definition]] = {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found.setdefault((first_line(node), getattr(node, "name", "<lambda>")), []).append(node)
    return found


def first_line(node: Definition) -> int:
    """The line of the first decorator, which is where a function's code begins."""
    decorators: List[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def code_within(code: Optional[types.CodeType], node: Definition) -> Optional[types.CodeType]:
    """The code of a nested function, which is a constant of the code around it."""
    if code is None:
        return None
    wanted = (first_line(node), getattr(node, "name", "<lambda>"))
    nested = [item for item in code.co_consts if isinstance(item, types.CodeType)]
    found = next((item for item in nested if (item.co_firstlineno, item.co_name) == wanted), None)
    return found or next((inner for item in nested for inner in _once(code_within(item, node))), None)


def _once(code: Optional[types.CodeType]) -> Iterator[types.CodeType]:
    if code is not None:
        yield code


def is_worth_reading(fn: types.FunctionType) -> bool:
    """False for the standard library, for Perfect, and for installed packages that do not know Perfect."""
    file = fn.__code__.co_filename
    if is_installed(file):
        return any(isinstance(value, (Task, Flow)) for value in list(fn.__globals__.values()))
    return is_own(file)
