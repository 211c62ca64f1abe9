"""Models of pydantic, of version 2 and 1, and its secrets: told by what they can do, never imported."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from perfect_client.schema.scalars import Hint, Schema, Wrong

MAX_COMPLAINTS = 3


def is_model(cls: Any) -> bool:
    return hasattr(cls, "model_validate") or (hasattr(cls, "parse_obj") and hasattr(cls, "__fields__"))


def is_secret_class(cls: Any) -> bool:
    """``SecretStr`` and its like."""
    return callable(getattr(cls, "get_secret_value", None))


def secret_class_hint(cls: Any) -> Hint:
    def read(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise Wrong
        return cls(value.encode("utf-8") if cls.__name__ == "SecretBytes" else value)

    return Hint({"type": "string", "writeOnly": True, "format": "password"}, read)


def model_hint(cls: Any) -> Hint:
    """Described by the model's own schema, and read by the model: its validators and its coercion count."""
    validate = cls.model_validate if hasattr(cls, "model_validate") else cls.parse_obj

    def read(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return validate(value)
        except (ValueError, TypeError, AssertionError) as error:
            raise Wrong(_reason(error)) from None

    return Hint(_schema(cls), read)


def _schema(cls: Any) -> Schema:
    try:
        if hasattr(cls, "model_json_schema"):
            found = cls.model_json_schema()
        elif hasattr(cls, "schema"):
            found = json.loads(json.dumps(cls.schema(ref_template="#/$defs/{model}"), default=str))
        else:
            found = {"title": cls.__name__}  # a class that only validates: it alone knows what it takes
    except Exception:  # a model may hold what JSON Schema has no words for
        return {"title": cls.__name__}
    schema: Schema = dict(found)
    if "definitions" in schema:  # version 1
        schema["$defs"] = schema.pop("definitions")
    return schema


def _reason(error: Exception) -> str:
    """What the model found wrong, without the values: they may be secret."""
    try:
        complaints: List[Dict[str, Any]] = error.errors()  # type: ignore[attr-defined]
        told = [
            "%s: %s" % (".".join(str(part) for part in one["loc"]) or "the whole", one["msg"]) for one in complaints
        ]
    except Exception:
        return "%s: %s" % (type(error).__name__, error)
    return "; ".join(told[:MAX_COMPLAINTS]) + ("; …" if len(told) > MAX_COMPLAINTS else "")
