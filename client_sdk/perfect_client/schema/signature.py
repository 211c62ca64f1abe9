"""Describe a function's parameters as JSON Schema, and bind JSON values back to them."""

from __future__ import annotations

import ast
import inspect
import sys
import typing
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Callable, Collection, Dict, List, Mapping, NamedTuple, Tuple

from perfect_client.errors import BadParameter
from perfect_client.schema import sentences
from perfect_client.schema.docstrings import parameter_descriptions
from perfect_client.schema.encoding import to_json
from perfect_client.schema.fields import default_of_field, is_default_of_a_field
from perfect_client.schema.hints import hint_of, optional, with_metadata
from perfect_client.schema.masking import is_secret, secrets_in
from perfect_client.schema.records import json_default
from perfect_client.schema.scalars import ANYTHING, Hint, Wrong
from perfect_client.schema.secrets import hide_all
from perfect_client.schema.validation import Unfit, fit, refuse_names

_EMPTY = inspect.Parameter.empty
_WITH_LIMITS: Any = {"include_extras": True} if sys.version_info >= (3, 9) else {}


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
            default = parameter.default
            if is_default_of_a_field(default):
                hint, default = with_metadata(hint, (default,)), default_of_field(default, _EMPTY)
            if default is None:
                hint = optional(hint)
            by_name[name] = Parameter(name, hint, default, parameter.kind is parameter.POSITIONAL_ONLY)
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
        found = typing.get_type_hints(target, **_WITH_LIMITS)
    except Exception:  # a hint may be any expression, and refer to names that only a type checker knows
        found = dict(getattr(target, "__annotations__", {}))
    resolved = {}
    for name, annotation in found.items():
        if isinstance(annotation, typing.ForwardRef):  # Python 3.8 leaves a string within a string unread
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
    told = parameter_descriptions(getattr(fn, "__doc__", None) or "")
    properties, defs = {}, {}  # type: Dict[str, Any], Dict[str, Any]
    for name, parameter in known.by_name.items():
        schema = _hoisted(parameter.hint.schema, defs)
        described = {"title": name, **{k: v for k, v in schema.items() if k != "title"}}
        if name in told:
            described.setdefault("description", told[name])
        properties[name] = {**described, **_default(parameter)}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, parameter in known.by_name.items() if parameter.required],
        "additionalProperties": known.open,
        **({"$defs": defs} if defs else {}),
    }


def _default(parameter: Parameter) -> Dict[str, Any]:
    """The default, unless it is secret."""
    return {} if parameter.required else json_default(parameter.name, parameter.hint.schema, parameter.default)


def _hoisted(schema: Any, defs: Dict[str, Any]) -> Any:
    """The schema with the definitions inside it moved to ``defs``, where a reference finds them from anywhere."""
    if isinstance(schema, list):
        return [_hoisted(item, defs) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed: Dict[str, str] = {}
    own = schema.get("$defs") or {}
    for name, definition in own.items():
        fresh, number = name, 2
        while fresh in defs and defs[fresh] != definition:
            fresh, number = "%s%d" % (name, number), number + 1
        renamed[name] = fresh
        defs[fresh] = definition
    for name, fresh in renamed.items():
        defs[fresh] = _referring(own[name], renamed)
    rest = {key: _hoisted(item, defs) for key, item in schema.items() if key != "$defs"}
    return _referring(rest, renamed) if any(old != new for old, new in renamed.items()) else rest


def _referring(schema: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_referring(item, renamed) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _referring(item, renamed) for key, item in schema.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        name = reference[len("#/$defs/") :]
        found["$ref"] = "#/$defs/" + renamed.get(name, name)
    return found


# ---------------------------------------------------------------------------------------------------------- binding


def bind(
    fn: Callable[..., Any], explicit: Mapping[str, Any], configuration_values: Mapping[str, Any]
) -> Dict[str, Any]:
    """All values that the function is to be called with, by name, in the order of its parameters.

    What is explicit wins over the configuration's values that are named like a parameter, these over the defaults.
    From then on what is secret among them is kept out of this process's lines. Raises ``BadParameter``.
    """
    known = parameters(fn)
    _keep_secrets(known, {**configuration_values, **explicit})
    try:
        return _bound(known, explicit, configuration_values)
    except Unfit as unfit:
        raise BadParameter(unfit.name, unfit.sentence) from None


def _bound(known: Parameters, explicit: Mapping[str, Any], configured: Mapping[str, Any]) -> Dict[str, Any]:
    refuse_names(known.by_name, explicit, known.open)
    bound: Dict[str, Any] = {}
    for name, parameter in known.by_name.items():
        if name in explicit:
            bound[name] = _read(parameter, explicit[name], "")
        elif name in configured:
            bound[name] = _read(parameter, configured[name], " in the configuration")
        elif parameter.required:
            raise Unfit(name, sentences.missing(name, sentences.describe(parameter.hint.schema)))
        else:
            bound[name] = parameter.default
    bound.update((name, value) for name, value in explicit.items() if name not in bound)
    return bound


class Reader:
    """Reads the arguments of direct calls of one function as its hints say. What is right already is not touched."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        annotations = _annotations(fn)
        self._of = {
            name: _Argument(parameter, annotations.get(name))
            for name, parameter in parameters(fn).by_name.items()
            if parameter.hint is not ANYTHING
        }
        self._where = " of the flow %r" % getattr(fn, "__name__", str(fn))

    def __bool__(self) -> bool:
        return bool(self._of)

    def changes(self, given: Mapping[str, Any], untouched: Collection[str] = ()) -> Dict[str, Any]:
        """By name, the values that the hints turn into others. Raises ``BadParameter`` for one that does not fit."""
        found: Dict[str, Any] = {}
        for name, value in given.items():
            argument = self._of.get(name)
            if argument is None or argument.fits(value) or name in untouched:
                continue
            try:
                new = argument.read(value, self._where)
            except Unfit as unfit:
                raise BadParameter(unfit.name, unfit.sentence) from None
            if new is not value:
                found[name] = new
        return found


class _Argument:
    """One parameter of a function that is called directly."""

    __slots__ = ("_abstract", "_limited", "_parameter", "cls")

    def __init__(self, parameter: Parameter, annotation: Any) -> None:
        self._parameter = parameter
        plain = type(annotation) is not type(List[int]) and getattr(annotation, "__origin__", None) is None
        is_class = plain and isinstance(annotation, type) and not hasattr(annotation, "__total__")
        self.cls: Any = annotation if is_class and not is_default_of_a_field(parameter.default) else None
        origin = getattr(annotation, "__origin__", None)
        self._abstract: Any = origin if getattr(origin, "__module__", "") == "collections.abc" else None
        self._limited = _has_limits(parameter.hint.schema)

    def fits(self, value: Any) -> bool:
        """Whether one look shows that the value is right."""
        cls = self.cls
        return cls is not None and isinstance(value, cls) and not (cls is date and isinstance(value, datetime))

    def read(self, value: Any, where: str) -> Any:
        """The value itself if it is what its hint asks for."""
        if hasattr(value, "__next__"):
            return value  # to look at what an iterator gives would use it up
        if self._limited:
            found = _read(self._parameter, value, where)
        else:
            try:
                found = self._parameter.hint.read(value)
            except (ValueError, TypeError, OverflowError):
                found = _read(self._parameter, value, where)  # says what is wrong
        if self._abstract is not None and isinstance(value, self._abstract):
            return value if _alike(value, found, self._abstract) else found
        return value if _alike(value, found) else found


_LIMITS = frozenset(
    {
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "formatMinimum",
        "formatMaximum",
        "formatExclusiveMinimum",
        "formatExclusiveMaximum",
    }
)


def _has_limits(schema: Any) -> bool:
    """Whether it says more than the hint's own reading checks."""
    if isinstance(schema, dict):
        return not _LIMITS.isdisjoint(schema) or any(map(_has_limits, schema.values()))
    return isinstance(schema, list) and any(map(_has_limits, schema))


def _alike(value: Any, found: Any, kind: Any = None) -> bool:
    """Whether reading a value changed nothing in it; a container counts as what it is made from."""
    if value is found:
        return True
    if isinstance(found, dict):
        return isinstance(value, kind or dict) and all(
            _alike(old, new) and _alike(value[old], found[new]) for old, new in zip(value, found)
        )
    if isinstance(found, (set, frozenset)):
        return isinstance(value, kind or type(found)) and set(map(id, value)) == set(map(id, found))
    if isinstance(found, (list, tuple)):
        return isinstance(value, kind or type(found)) and all(map(_alike, value, found))
    try:
        return type(value) is type(found) and bool(value == found)
    except Exception:  # what compares in its own way, as an array
        return False


def split(fn: Callable[..., Any], values: Mapping[str, Any]) -> Tuple[List[Any], Dict[str, Any]]:
    """Bound values as ``args, kwargs``: those that are positional only, and the others."""
    positional = [name for name, parameter in parameters(fn).by_name.items() if parameter.positional]
    return [values[name] for name in positional], {k: v for k, v in values.items() if k not in positional}


def _keep_secrets(known: Parameters, values: Mapping[str, Any]) -> None:
    properties = {name: parameter.hint.schema for name, parameter in known.by_name.items()}
    defaults = {name: parameter.default for name, parameter in known.by_name.items() if not parameter.required}
    for given in (defaults, values):
        hide_all(secrets_in(dict(given), {"properties": properties}))


def _read(parameter: Parameter, value: Any, where: str) -> Any:
    """The value as the hint says. What JSON can say of it is checked by the schema first, so that the sentence is
    the one that the server says; NaN and the infinities, which it cannot say, only reach a direct call."""
    schema = parameter.hint.schema
    try:
        told = to_json(value) if schema else None
    except (TypeError, ValueError, RecursionError):
        told = _UNSAYABLE
    if schema and told is not _UNSAYABLE:
        fit(parameter.name, schema, told, where=where)
    try:
        return parameter.hint.read(value)
    except Wrong as wrong:
        if str(wrong):
            raise Unfit(parameter.name, sentences.unusable(parameter.name, str(wrong), where)) from None
    except (ValueError, TypeError, OverflowError) as wrong:
        raise Unfit(parameter.name, sentences.unusable(parameter.name, str(wrong), where)) from None
    secret = is_secret(parameter.name, schema, value)
    sentence = sentences.must_be(parameter.name, sentences.describe(schema), value, secret, where)
    raise Unfit(parameter.name, sentence)


_UNSAYABLE = object()
