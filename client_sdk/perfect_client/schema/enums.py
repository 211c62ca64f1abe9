"""Hints that name their values: ``Enum`` and ``Literal``."""

from __future__ import annotations

import enum
from typing import Any, List, Type

from perfect_client.schema.encoding import to_json
from perfect_client.schema.scalars import Hint, Schema, Wrong
from perfect_client.schema.validation import same


def literal_hint(annotation: Any) -> Hint:
    choices = [(choice, to_json(choice)) for choice in _flat(annotation)]

    def read(value: Any) -> Any:
        for choice, told in choices:
            if (type(choice) is type(value) and choice == value) or same(told, value):
                return choice
        raise Wrong

    return Hint({"enum": [told for _, told in choices]}, read)


def _flat(annotation: Any) -> List[Any]:
    """The choices of a literal; Python 3.8 keeps literals within a literal as they are."""
    found: List[Any] = []
    for choice in annotation.__args__:
        found += _flat(choice) if hasattr(choice, "__args__") else [choice]
    return found


def enum_hint(cls: Type[enum.Enum]) -> Hint:
    """By the members' values, or their names where JSON has no word for the value."""
    members = [(member, _told(member)) for member in cls]
    by_name = dict(cls.__members__)

    def read(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        for member, told in members:
            if same(told, value):
                return member
        if isinstance(value, str) and value in by_name:
            return by_name[value]
        raise Wrong

    told_values = [told for _, told in members]
    schema: Schema = {"enum": told_values}
    if told_values and all(isinstance(value, str) for value in told_values):
        schema["type"] = "string"
    names = [member.name for member in cls]
    if names != told_values:
        schema["x-enum-varnames"] = names
    return Hint(schema, read)


def _told(member: enum.Enum) -> Any:
    try:
        return to_json(member)
    except TypeError:  # the name will do
        return member.name
