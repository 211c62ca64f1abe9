"""What a paused run asks a person for: a type as a form, and what came back as a value of that type."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Dict, Mapping, Optional, Type, TypeVar

from perfect_client.schema.encoding import to_json
from perfect_client.schema.hints import hint_of
from perfect_client.schema.masking import secrets_in
from perfect_client.schema.records import json_default
from perfect_client.schema.scalars import Hint
from perfect_client.schema.secrets import hide_all
from perfect_client.schema.validation import fit_all

R = TypeVar("R", bound="RunInput")
VALUE = "value"  # what the one field of a simple type is called


class RunInput:
    """A form as a class: each annotated name is a field, with its default.

    A subclass becomes a dataclass. Dataclasses, ``TypedDict``, pydantic models and simple types can be asked for too.
    """

    _initial: Dict[str, Any] = {}
    _description: Optional[str] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclasses.dataclass(cls)

    @classmethod
    def with_initial_data(cls: Type[R], description: Optional[str] = None, **values: Any) -> Type[R]:
        """The same form with other defaults, and a sentence for the person."""
        fresh: Type[R] = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__annotations__": {}})
        fresh._initial, fresh._description = {**cls._initial, **values}, description or cls._description
        return fresh


class Form:
    """What is asked for: ``schema`` is a JSON Schema of type object. Made of a type, or of None: only to go on.

    A type that has no fields of its own is the one field ``value``.
    """

    def __init__(self, wanted: Any) -> None:
        self._hint = NOTHING if wanted is None else hint_of(wanted)
        schema = copy.deepcopy(self._hint.schema)
        self._whole = schema.get("type") == "object" and "properties" in schema
        if not self._whole:
            defs = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
            schema = {"type": "object", "properties": {VALUE: schema}, "required": [VALUE], **defs}
        self.schema: Dict[str, Any] = schema
        self.description: str = getattr(wanted, "_description", None) or ""
        self._initial = {name: to_json(value) for name, value in getattr(wanted, "_initial", {}).items()}
        for name, value in self._initial.items():
            if name not in schema["properties"]:
                raise ValueError("%s has no field %r to give an initial value to" % (wanted.__name__, name))
            schema["properties"][name].pop("default", None)
            schema["properties"][name].update(json_default(name, schema["properties"][name], value))
        schema["required"] = [name for name in schema.get("required", ()) if name not in self._initial]

    def value(self, given: Mapping[str, Any]) -> Any:
        """What was filled in, as the type that was asked for. Raises ``ValueError``, a sentence."""
        values = fit_all(self.schema, {**self._initial, **given})
        hide_all(secrets_in(values, self.schema))
        if self._hint is NOTHING:
            return None
        return self._hint.read(values if self._whole else values[VALUE])


NOTHING = Hint({"type": "object", "properties": {}, "additionalProperties": False}, lambda value: None)
