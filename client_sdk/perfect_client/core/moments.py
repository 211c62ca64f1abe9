"""Defaults of parameters that are the moment of the import: each run is given the same one, as old as the import."""

from __future__ import annotations

import ast
import inspect
import textwrap
import time
from datetime import date, datetime
from typing import Any, Callable, Dict, List, Optional

_WINDOW_S = 3600.0  # how long before now the import may have been
_LITERAL = (ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.USub)


def remarks(fn: Callable[..., Any]) -> List[str]:
    """A sentence for each parameter whose default was worked out from the clock while the file was imported."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (ValueError, TypeError):
        return []
    suspects = [p for p in parameters if p.default is not p.empty and _is_now(p.default)]
    sources = _default_sources(fn) if suspects else {}
    return [_sentence(p.name, sources.get(p.name)) for p in suspects if not _is_written_out(sources.get(p.name))]


def _sentence(name: str, source: Optional[ast.expr]) -> str:
    told = ", %s," % ast.unparse(source) if source is not None and hasattr(ast, "unparse") else ""
    return (
        "The default of %r%s is worked out when the worker imports the file, not when a run starts. "
        "Let it be None and work it out in the flow." % (name, told)
    )


def _is_now(value: Any) -> bool:
    """Whether a value is this moment, or today, as far as a value can tell."""
    if isinstance(value, datetime):
        return abs(datetime.now(value.tzinfo).timestamp() - _timestamp(value)) < _WINDOW_S
    if isinstance(value, date):
        return value == date.today()
    if isinstance(value, float):
        return abs(time.time() - value) < _WINDOW_S
    return isinstance(value, str) and len(value) >= 10 and value[:10] == date.today().isoformat()


def _timestamp(value: datetime) -> float:
    try:
        return value.timestamp()
    except (OverflowError, OSError, ValueError):
        return 0.0


def _default_sources(fn: Callable[..., Any]) -> Dict[str, ast.expr]:
    """The expressions of the defaults by parameter; nothing where there is no source."""
    try:
        found = ast.parse(textwrap.dedent(inspect.getsource(fn))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    if not isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return {}
    args = found.args
    positional = [*args.posonlyargs, *args.args]
    pairs = [*zip(reversed(positional), reversed(args.defaults)), *zip(args.kwonlyargs, args.kw_defaults)]
    return {argument.arg: default for argument, default in pairs if default is not None}


def _is_written_out(source: Optional[ast.expr]) -> bool:
    """Whether the expression gives the same value at any time: a literal, or ``date(2026, 1, 31)``."""
    if isinstance(source, ast.Call):
        named = source.func.attr if isinstance(source.func, ast.Attribute) else getattr(source.func, "id", "")
        return named in ("date", "datetime") and all(isinstance(argument, _LITERAL) for argument in source.args)
    return isinstance(source, _LITERAL)
