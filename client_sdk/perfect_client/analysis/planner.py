"""Which tasks a flow calls, read from its code without running it.

An interpreter of names only: it follows calls through helper functions, methods, nested functions, partials and
containers, in the order in which they would happen. What it cannot know it leaves out; the server learns the rest.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from perfect_client.analysis.interpreter import Walker
from perfect_client.analysis.scopes import (
    Above,
    Definition,
    Known,
    Local,
    Made,
    Many,
    Method,
    Scope,
    Value,
    any_of,
    attribute,
    class_that_defines,
    code_within,
    definitions_of,
    elements,
    free_variables,
    identity,
    is_worth_reading,
)
from perfect_client.engine import decorators
from perfect_client.engine.decorated import Bound
from perfect_client.engine.decorators import Flow, Task
from perfect_client.wire.messages import MAX_NAME, TaskSpec

MAX_FUNCTIONS = 2000  # a flow that reaches more than these has a plan of what the first ones call

_EACH = frozenset(
    {
        "map",
        "amap",
        "imap",
        "imap_unordered",
        "starmap",
        "starmap_async",
        "map_async",
        "filter",
        "filterfalse",
        "reduce",
    }
)
_NEVER_CALLS = frozenset(
    {
        "callable",
        "format",
        "getattr",
        "hasattr",
        "id",
        "isinstance",
        "issubclass",
        "len",
        "print",
        "repr",
        "str",
        "type",
    }
)
_PASSES_ON = frozenset(
    {
        "chain",
        "dict",
        "enumerate",
        "frozenset",
        "iter",
        "list",
        "next",
        "partial",
        "reversed",
        "set",
        "tuple",
        "zip",
    }
)


_WAYS = frozenset({"submit", "map", "with_options"})


class _Read(NamedTuple):
    """The value of an expression that was read; None in it is a value like any other."""

    value: Value


class Plan(NamedTuple):
    """The tasks in the order of their calls; ``keys`` gives the key of a task by the identity of its code."""

    tasks: List[TaskSpec]
    keys: Dict[int, str]
    codes: List[Any]  # kept alive, so that no other code can get the same identity


def plan(flow: Flow[Any, Any]) -> Plan:
    """The plan of a flow; it is made once. Empty where there is no source. Never raises."""
    known: Optional[Plan] = flow.__dict__.get("_plan")
    if known is None:
        reader = _Reader()
        with suppress(Exception):  # strange code must not keep a flow from being announced; what was found counts
            reader.call(Known(flow.fn), [], {})
        known = flow.__dict__["_plan"] = Plan(list(reader.found.values()), reader.keys, reader.codes)
    return known


def keys_of(flow: Flow[Any, Any]) -> Dict[int, str]:
    """The keys of a sub-flow's tasks, as its server knows them; none of a flow that was made while the run went on."""
    made_here = "<locals>" in str(getattr(flow, "__qualname__", ""))
    return {} if made_here and "_plan" not in flow.__dict__ else plan(flow).keys


class _Reader(Walker):
    """Follows the calls and collects the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Dict[Any, TaskSpec] = {}
        self.keys: Dict[int, str] = {}
        self.codes: List[Any] = []
        self._read: Dict[Any, Value] = {}
        self._read_code: Set[int] = set()

    # -------------------------------------------------------------------------------------------------------- tasks

    def _add(self, code: Any, options: Dict[str, Any]) -> None:
        marker = id(code)
        known = self.found.get(marker)
        if known is None:
            key, number, taken = options["key"], 2, {spec.key for spec in self.found.values()}
            while key in taken:
                key, number = "%s#%d" % (options["key"], number), number + 1
            known = TaskSpec(**{**options, "key": key})
            self.keys[marker] = key
            self.codes.append(code)
        self.found[marker] = TaskSpec(**{**known.__dict__, "in_loop": known.in_loop or self.loops > 0})

    # -------------------------------------------------------------------------------------------------------- calls

    def call(self, value: Value, args: List[Value], named: Dict[str, Value]) -> Value:
        """Something is called; what it returns."""
        if isinstance(value, Many):
            return any_of([self.call(one, args, named) for one in value.values])
        if isinstance(value, Local):
            return self._call_local(value, args, named)
        if isinstance(value, Method):
            return self._read_function(value.function, [value.owner, *args], named)
        return self._call_known(value.value, args, named) if isinstance(value, Known) else None

    def _call_local(self, value: Local, args: List[Value], named: Dict[str, Value]) -> Value:
        if value.task is not None:
            self._add(value.code or value.node, value.task)
            return None
        scope = Scope(value.scope, value.scope.outside, value.qualname, value.code)
        marker = (id(value.node), self.loops > 0, tuple((k, identity(v)) for k, v in value.scope.names.items()))
        return self._read_nodes([value.node], scope, args, named, marker)

    def _call_known(self, target: Any, args: List[Value], named: Dict[str, Value]) -> Value:
        if isinstance(target, Task):
            self._add(target.code, _options(target))
            return None
        if isinstance(target, Flow):  # what it calls is part of its own share
            self._add(target.code, _options(target))
            return None
        if isinstance(target, types.FunctionType):
            return self._read_function(target, args, named)
        if isinstance(target, Bound):
            return self._call_known(target.__func__, [Known(target.__self__), *args], named)
        if isinstance(target, types.MethodType):
            return self.call(Known(target.__func__), [Known(target.__self__), *args], named)
        if isinstance(target, functools.partial):
            given = {**{name: Known(item) for name, item in target.keywords.items()}, **named}
            return self.call(Known(target.func), [*map(Known, target.args), *args], given)
        if isinstance(target, type):
            return self._make(target, args, named)
        wrapped = inspect.getattr_static(target, "__wrapped__", None)  # of functools.lru_cache and the like
        if wrapped is not None:
            return self.call(Known(wrapped), args, named)
        return self.call(attribute(Known(target), "__call__"), args, named) if _is_of_user(type(target)) else None

    def _make(self, cls: type, args: List[Value], named: Dict[str, Value]) -> Value:
        if _is_of_user(cls):
            for name in ("__init__", "__post_init__"):
                self.call(attribute(Made(cls), name), args, named)
        return Made(cls)

    def _read_function(self, fn: Any, args: List[Value], named: Dict[str, Value]) -> Value:
        result: Value = None
        if isinstance(fn, types.FunctionType) and is_worth_reading(fn):
            scope = Scope(None, free_variables(fn), fn.__qualname__.replace("<locals>.", ""), fn.__code__)
            scope.owner = class_that_defines(args[0], fn) if args and isinstance(args[0], (Known, Made)) else None
            marker = (id(fn), self.loops > 0)
            nodes = definitions_of(fn.__code__, fn.__globals__)
            for name, default in _defaults(fn):
                scope.names[name] = Known(default)
            result = self._read_nodes(nodes, scope, args, named, marker)
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None and id(getattr(wrapped, "__code__", wrapped)) not in self._read_code:
            result = any_of([result, self.call(Known(wrapped), args, named)])
        return result

    def _read_nodes(
        self, nodes: List[Definition], scope: Scope, args: List[Value], named: Dict[str, Value], marker: Any
    ) -> Value:
        marker = (marker, tuple(map(identity, args)), tuple((name, identity(value)) for name, value in named.items()))
        if marker in self._read or len(self._read) >= MAX_FUNCTIONS:
            return self._read.get(marker)
        self._read[marker] = None
        self._read_code.add(id(scope.code))
        before, self.scope = self.scope, scope
        try:
            for node in nodes:
                self._bind_arguments(node, args, named)
                if isinstance(node, ast.Lambda):
                    scope.returned.append(self.visit(node.body))
                else:
                    self.visit_all(node.body)
        finally:
            self.scope = before
        self._read[marker] = any_of(scope.returned)
        return self._read[marker]

    def _bind_arguments(self, node: Definition, args: List[Value], named: Dict[str, Value]) -> None:
        wanted = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        known = self.scope.names
        own_defaults = zip(reversed(wanted), reversed(node.args.defaults))
        for name, default in own_defaults:
            if name not in known:
                known[name] = self.visit(default)
        for name in [*wanted, *(argument.arg for argument in node.args.kwonlyargs)]:
            known.setdefault(name, None)
        known.update(zip(wanted, args))
        known.update((name, value) for name, value in named.items() if name in known)
        if node.args.vararg:
            known[node.args.vararg.arg] = any_of(args[len(wanted) :])
        if node.args.kwarg:
            known[node.args.kwarg.arg] = any_of([value for name, value in named.items() if name not in known])

    def visit_Call(self, node: ast.Call) -> Value:
        submitted = self._submitted(node)
        if submitted is not None:
            return submitted.value
        target = self.visit(node.func)
        args = [self.visit(argument) for argument in node.args]
        named = {keyword.arg or "": self.visit(keyword.value) for keyword in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [value for value in (*args, *named.values()) if value is not None]
        if isinstance(target, Known) and target.value is super:
            return self._above()
        if name in _PASSES_ON and not _is_readable(target):
            return args[0] if name == "partial" and args else any_of(given)
        if name in ("values", "items", "copy", "get", "pop") and isinstance(node.func, ast.Attribute):
            inside = elements(self.visit(node.func.value))
            if inside is not None:
                return inside
        result = self.call(target, args, named)
        if not _is_task(target) and name not in _NEVER_CALLS:
            self.loops += name in _EACH
            for value in given:
                self._passed(value)
            self.loops -= name in _EACH
        return result

    def _submitted(self, node: ast.Call) -> Optional[_Read]:
        """``task.submit(…)``, ``task.map(…)`` and ``task.with_options(…)``."""
        func = node.func
        if not isinstance(func, ast.Attribute) or func.attr not in _WAYS:
            return None
        owner = self.value(func.value)
        tasks = [one for one in (owner.values if isinstance(owner, Many) else (owner,)) if _is_task(one)]
        if not tasks:
            return None
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(argument)
        if func.attr == "with_options":
            return _Read(owner)
        self.loops += func.attr == "map"
        for one in tasks:
            self.call(one, [], {})
        self.loops -= func.attr == "map"
        return _Read(None)

    def _passed(self, value: Value) -> None:
        """A function that is given away by name is taken to be called by who gets it."""
        for one in value.values if isinstance(value, Many) else (value,):
            if isinstance(one, Known) and not isinstance(one.value, (Task, Flow, *_FUNCTIONS)):
                inside = elements(one)
                if inside is not None:
                    self._passed(inside)
            elif isinstance(one, (Known, Local, Method)) and id(_code(one)) not in self._read_code:
                self.call(one, [], {})

    def _above(self) -> Value:
        scope: Optional[Scope] = self.scope
        while scope is not None and scope.owner is None:
            scope = scope.parent
        first = next(iter(scope.names.values()), None) if scope is not None else None
        return Above(first, scope.owner) if scope is not None and scope.owner is not None else None

    def _visit_definition(self, node: Any) -> None:
        scope = self.scope
        qualname = "%s.%s" % (scope.qualname, node.name)
        code = code_within(scope.code, node)
        self.visit_all(node.args.defaults)
        scope.names[node.name] = Local(node, scope, qualname, code, self._task_options(node, qualname))

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_definition

    def _task_options(self, node: Any, qualname: str) -> Optional[Dict[str, Any]]:
        """The options of ``@task`` on a nested function, which does not exist before its flow runs."""
        for decorator in node.decorator_list:
            made = decorator if isinstance(decorator, ast.Call) else None
            target = self.value(made.func if made else decorator)
            if isinstance(target, Known) and target.value is decorators.task:
                given = {k.arg: self._constant(k.value) for k in made.keywords} if made else {}
                return {
                    "key": qualname[:MAX_NAME],
                    "name": given.get("name") or node.name,
                    "weight": given.get("weight"),
                    "estimated_ms": given.get("estimated_time"),
                    "description": given.get("description") or ast.get_docstring(node) or "",
                }
        return None

    def _constant(self, node: ast.expr) -> Any:
        value = Known(node.value) if isinstance(node, ast.Constant) else self.value(node)
        found = value.value if isinstance(value, Known) else None
        return found if isinstance(found, (str, int, float)) and not isinstance(found, bool) else None


_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def _options(task: Any) -> Dict[str, Any]:
    return {
        "key": task.key,
        "name": task.name,
        "weight": task.weight,
        "estimated_ms": task.estimated_time,
        "description": task.description,
    }


def _defaults(fn: types.FunctionType) -> List[Tuple[str, Any]]:
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    last = fn.__defaults__ or ()
    return [*zip(names[len(names) - len(last) :], last), *(fn.__kwdefaults__ or {}).items()]


def _is_of_user(cls: type) -> bool:
    init = next((vars(one)[n] for one in cls.__mro__ for n in ("__init__", "__call__") if n in vars(one)), None)
    return any(isinstance(item, types.FunctionType) and is_worth_reading(item) for item in (init, *vars(cls).values()))


def _is_readable(value: Value) -> bool:
    return isinstance(value, (Local, Method)) or (isinstance(value, Known) and isinstance(value.value, _FUNCTIONS))


def _is_task(value: Value) -> bool:
    found = value.value if isinstance(value, Known) else None
    if isinstance(found, (Bound, types.MethodType)):
        found = found.__func__
    return isinstance(found, (Task, Flow)) or (isinstance(value, Local) and value.task is not None)


def _code(value: Any) -> Any:
    if isinstance(value, Local):
        return value.code
    found = value.function if isinstance(value, Method) else value.value
    return getattr(found, "code", None) or getattr(found, "__code__", None)
