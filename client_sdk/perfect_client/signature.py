"""Describe a function's parameters as JSON Schema, and bind JSON values back to them."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from perfect_client.errors import BadParameter
from perfect_client.failures import preview
from perfect_client.hints import hint_of, optional
from perfect_client.jsonable import to_json
from perfect_client.protocol import clean_text, dumps
from perfect_client.values import ANYTHING, Hint, Wrong

MAX_DEFAULT_BYTES = 16 * 1024
MAX_DESCRIPTION = 1000  # characters

_EMPTY = inspect.Parameter.empty


class Parameter(NamedTuple):
    """One parameter of a flow."""

    name: str
    hint: Hint
    default: Any
    positional: bool

    @property
    def required(self) -> bool:
        return self.default is _EMPTY


class Parameters(NamedTuple):
    """The parameters in their order; ``open`` when the function takes any others, by ``**kwargs``."""

    by_name: Dict[str, Parameter]
    open: bool


def parameters(fn: Callable[..., Any]) -> Parameters:
    """What a function can be given by name. A function without a readable signature takes anything."""
    try:
        return _remembered(fn)
    except TypeError:  # a callable object that cannot be hashed
        return _parameters(fn)


def _parameters(fn: Callable[..., Any]) -> Parameters:
    try:
        found = inspect.signature(fn).parameters
    except (ValueError, TypeError):
        return Parameters({}, True)
    annotations = _annotations(fn)
    by_name, is_open = {}, False
    for name, parameter in found.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            hint = _hint(annotations[name]) if name in annotations else ANYTHING
            if parameter.default is None:
                hint = optional(hint)
            by_name[name] = Parameter(name, hint, parameter.default, parameter.kind is parameter.POSITIONAL_ONLY)
    return Parameters(by_name, is_open)


_remembered = lru_cache(maxsize=512)(_parameters)  # a run is a fork of a process that has described the flow already


def _hint(annotation: Any) -> Hint:
    try:
        return hint_of(annotation)
    except Exception:  # a strange class in a hint must not keep a flow from being announced
        return ANYTHING


# ------------------------------------------------------------------------------------------------------ annotations


def _annotations(fn: Callable[..., Any]) -> Dict[str, Any]:
    """The resolved annotations; those that cannot be resolved are left out, each for itself."""
    target = inspect.unwrap(fn)
    while hasattr(target, "func"):  # functools.partial
        target = inspect.unwrap(target.func)
    if not hasattr(target, "__annotations__") and callable(target):
        target = type(target).__call__
    scope = dict(getattr(target, "__globals__", {}))
    try:
        found = typing.get_type_hints(target)
    except Exception:  # a hint may be any expression, and refer to names that only a type checker knows
        found = dict(getattr(target, "__annotations__", {}))
    resolved = {}
    for name, annotation in found.items():
        if isinstance(annotation, typing.ForwardRef):  # Python 3.8 leaves a text within a text unread
            annotation = annotation.__forward_arg__
        try:
            resolved[name] = _evaluate(annotation, scope) if isinstance(annotation, str) else annotation
        except Exception:
            continue
    return resolved


def _evaluate(annotation: str, scope: Dict[str, Any]) -> Any:
    """A hint's value; on old Pythons ``X | None`` and ``list[int]`` are read as newer ones do."""
    try:
        return eval(annotation, scope)  # as typing.get_type_hints does: the text stands in the user's own code
    except TypeError:
        tree = ast.fix_missing_locations(_Modern().visit(ast.parse(annotation.strip(), mode="eval")))
        return eval(compile(tree, "<annotation>", "eval"), {**scope, "__perfect_typing": typing})


class _Modern(ast.NodeTransformer):
    _GENERICS = {"list": "List", "dict": "Dict", "set": "Set", "frozenset": "FrozenSet", "tuple": "Tuple"}

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        sides: List[ast.expr] = [self.visit(node.left), self.visit(node.right)]
        return _subscript("Union", ast.Tuple(elts=sides, ctx=ast.Load()))

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in self._GENERICS:
            node.value = _typing_name(self._GENERICS[node.value.id])
        return node


def _typing_name(name: str) -> ast.expr:
    return ast.Attribute(value=ast.Name(id="__perfect_typing", ctx=ast.Load()), attr=name, ctx=ast.Load())


def _subscript(name: str, inside: Any) -> ast.expr:
    if sys.version_info < (3, 9):
        inside = ast.Index(value=inside)
    return ast.Subscript(value=_typing_name(name), slice=inside, ctx=ast.Load())


# ------------------------------------------------------------------------------------------------------- describing


def parameters_schema(fn: Callable[..., Any]) -> Dict[str, Any]:
    """JSON Schema of type object: one property for each parameter, in the signature's order."""
    known = parameters(fn)
    told = _told(getattr(fn, "__doc__", None) or "")
    properties = {}
    for name, parameter in known.by_name.items():
        described = {"title": name, **{k: v for k, v in parameter.hint.schema.items() if k != "title"}}
        if name in told:
            described["description"] = told[name]
        properties[name] = {**described, **_default(parameter)}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, parameter in known.by_name.items() if parameter.required],
        "additionalProperties": known.open,
    }


def _default(parameter: Parameter) -> Dict[str, Any]:
    """The default as ``default``; nothing when it is none that JSON can say, as an object or a very long one."""
    if parameter.required:
        return {}
    try:
        value = to_json(parameter.default)
        return {"default": value} if len(dumps(value)) <= MAX_DEFAULT_BYTES else {}
    except (TypeError, ValueError, RecursionError):
        return {}


_SPHINX = re.compile(r"^\s*:param\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def _told(docstring: str) -> Dict[str, str]:
    """What a docstring in Google's or Sphinx's style says of each parameter."""
    told: Dict[str, List[str]] = {}
    current: Optional[List[str]] = None
    section_indent, entry_indent = -1, -1
    for line in inspect.cleandoc(docstring).splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        sphinx = _SPHINX.match(line)
        if sphinx:
            current, entry_indent, section_indent = told.setdefault(sphinx.group(1), []), indent, -1
            current.append(sphinx.group(2))
        elif text in ("Args:", "Arguments:", "Parameters:"):
            section_indent, entry_indent, current = indent, -1, None
        elif section_indent >= 0 and text and indent > section_indent and entry_indent in (-1, indent):
            google = _GOOGLE.match(text)
            entry_indent, current = indent, told.setdefault(google.group(1), []) if google else None
            if google and current is not None:
                current.append(google.group(2))
        elif current is not None and text and indent > entry_indent:
            current.append(text)
        elif text:
            section_indent, current = -1, None
    return {name: clean_text(" ".join(lines).strip()[:MAX_DESCRIPTION]) for name, lines in told.items()}


# ---------------------------------------------------------------------------------------------------------- binding


def bind(
    fn: Callable[..., Any], explicit: Mapping[str, Any], configuration_values: Mapping[str, Any]
) -> Dict[str, Any]:
    """All values that the function is to be called with, by name, in the order of its parameters.

    What is explicit wins over the configuration's values that are named like a parameter, these over the defaults.
    Raises ``BadParameter``.
    """
    known = parameters(fn)
    for name in explicit:
        if name not in known.by_name and not known.open:
            raise BadParameter(name, _unknown(name, list(known.by_name)))
    bound: Dict[str, Any] = {}
    for name, parameter in known.by_name.items():
        if name in explicit:
            bound[name] = _read(parameter, explicit[name], "")
        elif name in configuration_values:
            bound[name] = _read(parameter, configuration_values[name], " in the configuration")
        elif parameter.required:
            raise BadParameter(name, "Parameter %r is missing: it must be %s." % (name, parameter.hint.words))
        else:
            bound[name] = parameter.default
    bound.update((name, value) for name, value in explicit.items() if name not in bound)
    return bound


def split(fn: Callable[..., Any], values: Mapping[str, Any]) -> Tuple[List[Any], Dict[str, Any]]:
    """Bound values as ``args, kwargs``: those that are positional only, and the others."""
    positional = [name for name, parameter in parameters(fn).by_name.items() if parameter.positional]
    return [values[name] for name in positional], {k: v for k, v in values.items() if k not in positional}


def _read(parameter: Parameter, value: Any, where: str) -> Any:
    try:
        return parameter.hint.read(value)
    except (ValueError, TypeError, OverflowError) as wrong:
        right = str(wrong) if isinstance(wrong, Wrong) and str(wrong) else parameter.hint.words
        sentence = "Parameter %r%s must be %s, not %s." % (parameter.name, where, right, preview(value))
        raise BadParameter(parameter.name, sentence) from None


def _unknown(name: str, known: List[str]) -> str:
    near = get_close_matches(name, known, 1)
    if near:
        return "There is no parameter %r: did you mean %r?" % (name, near[0])
    return "There is no parameter %r: the flow takes %s." % (name, ", ".join(known) or "none")
