"""From Python values to JSON: the way back is ``hints``."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Callable, Dict, List, Mapping, Tuple
from uuid import UUID


def to_json(value: Any) -> Any:
    """The JSON value that reads back as ``value``. Raises ``TypeError`` when there is none."""
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if not isinstance(value, type) and hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    raise TypeError("a %s has no JSON value" % type(value).__name__)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise TypeError("%s has no JSON value" % value)
    return value


def _json_object(value: Mapping[Any, Any]) -> Dict[str, Any]:
    return {key if isinstance(key, str) else str(to_json(key)): to_json(item) for key, item in value.items()}


def _json_list(value: Any) -> List[Any]:
    return [to_json(item) for item in value]


def _json_set(value: Any) -> List[Any]:
    return sorted(_json_list(value), key=repr)


_WRITERS: Tuple[Tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: to_json(value.value)),
    ((bool, type(None)), lambda value: value),
    (int, int),
    (float, lambda value: _finite(float(value))),
    (str, str),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, timedelta.total_seconds),
    ((Decimal, UUID, PurePath), str),
    (bytes, lambda value: value.decode("utf-8")),
    (Mapping, _json_object),
    ((set, frozenset), _json_set),
    ((list, tuple), _json_list),
)
