"""What a run may be given: refuse at the door, in one sentence that names the field and what would be right.

The schema is the worker's description of the function's signature; ``perfect_client.schema.signature`` writes it.
``perfect_client.schema.validation`` checks values against it and says what is wrong; the run's process asks it too.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from perfect_client.schema import masking, redaction, sentences, validation
from perfect_client.wire.messages import MAX_NAME, MAX_PARAMETERS_BYTES, ProtocolError, clean_json, dumps

from flows import sealing
from flows.effort import Bounded
from flows.models import Flow


class Refused(ValueError):
    """A wish that cannot be granted. ``field`` names what is wrong, ``sentence`` says it to a person."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field, self.sentence = field, sentence


class Missing(Refused):
    """There is no such flow, run or schedule."""


class Conflict(Refused):
    """The wish comes too late or too early for the state that the run is in."""


def nearest(name: str, known: Iterable[str], most: int = 1) -> str:
    """`` Did you mean 'x'?``, `` Known: a, b.`` or nothing, to end a sentence with. Case does not count."""
    names = list(known)
    spellings: dict[str, list[str]] = {}
    for each in names:
        spellings.setdefault(each.casefold(), []).append(each)
    close = difflib.get_close_matches(name.casefold(), spellings, n=most)
    found = [each for folded in close for each in spellings[folded]][:most]
    if found:
        return f" Did you mean {' or '.join(map(repr, found))}?"
    return f" Known: {', '.join(sorted(names)[:10])}." if names else ""


def refuse_unknown(asked: Iterable[str], known: Collection[str]) -> None:
    """Raise ``Refused`` for the first name of a query that means nothing there: left out in silence, a misspelt filter
    would show more than was asked for."""
    for name in asked:
        if name not in known:
            raise Refused(name[:100], f"There is no query parameter {name[:100]!r} here.{nearest(name, known)}")


def configuration_of(flow: Flow, wanted: str | None) -> str:
    """The name of the configuration to use; the flow's first if none is wanted."""
    if not wanted:
        return flow.default_configuration
    if not isinstance(wanted, str) or wanted not in flow.configurations:
        raise Refused(
            "configuration",
            f"{flow.name} has no configuration {wanted!r}.{nearest(str(wanted), flow.configuration_names)}",
        )
    return wanted


def clean(
    flow: Flow,
    parameters: Mapping[str, Any] | None,
    configuration: str,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The explicit parameters as JSON values that the flow's schema allows, texts that say a number as that number.

    A required parameter may also come from the configuration's values; those stay on the worker's side. A secret that
    is still masked counts as it was in ``before``. Raises ``Refused``.
    """
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, Mapping):
        raise Refused("parameters", "parameters must be an object: names and values")
    _check_size(parameters)
    try:
        return _fitting(flow, parameters, configuration, before)
    except Refused as refused:  # a secret may stand in another parameter too, as in an address
        secrets = redaction.Hidden(masking.secrets_in(parameters, flow.parameters))
        raise Refused(refused.field, secrets.without(refused.sentence)) from None


def _fitting(
    flow: Flow, parameters: Mapping[str, Any], configuration: str, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    values = masking.restore(dict(parameters), dict(before or {}), flow.parameters)
    for name, value in values.items():
        if sealing.unreadable(value):
            raise Refused(name[:200], f"Parameter {name!r} cannot be read: {sealing.NO_KEY}.")
    effort = Bounded()
    try:
        elsewhere = flow.configurations.get(configuration) or {}
        found = validation.fit_all(flow.parameters, values, elsewhere, effort=effort)
    except validation.Unfit as unfit:
        raise Refused(unfit.name[:200], unfit.sentence) from None
    for name, value in found.items():
        _check_kept(name, value)
        if masking.MASK in masking.secrets_in({name: value}, flow.parameters):
            raise Refused(name, f"Parameter {name!r} is masked: give its value, or leave it out.")
    _check_beyond(flow, found, effort)
    return found


def masked(flow: Flow, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, or a configuration's values, with what is secret as ``***``: what doors show."""
    found: dict[str, Any] = masking.mask(dict(values), flow.parameters)
    return found


def masked_schema(flow: Flow) -> dict[str, Any]:
    """The parameters' schema as doors show it: without defaults and examples of what is secret."""
    found: dict[str, Any] = masking.mask_schema(flow.parameters)
    return found


def _check_size(parameters: Mapping[str, Any]) -> None:
    """Refuse what is no JSON, too deep or too large, before anything else looks at it."""
    size = 2
    for name, value in parameters.items():
        if not isinstance(name, str) or not name:
            raise Refused("parameters", "a parameter's name must be a string")
        try:
            size += len(dumps(clean_json({name: value})).encode("utf-8", "backslashreplace"))
        except (ProtocolError, RecursionError) as wrong:
            raise Refused(name[:200], f"Parameter {sentences.preview_value(name)} cannot be used: {wrong}.") from None
        except ValueError:  # Python writes no integer of more than 4,300 digits
            raise Refused(
                name[:200], f"Parameter {sentences.preview_value(name)} holds a number of too many digits."
            ) from None
    if size > MAX_PARAMETERS_BYTES:
        raise Refused(
            "parameters",
            f"the parameters take {size:,} bytes as JSON; {MAX_PARAMETERS_BYTES:,} are allowed."
            " Pass a path or an address to large data instead.",
        )


def _check_kept(name: str, value: Any) -> None:
    """Refuse what a database or the wire would have to change."""
    odd = _odd({name: value})
    if odd:
        raise Refused(name[:200], f"Parameter {sentences.preview_value(name)} holds {odd}.")


def _odd(value: Any) -> str:
    if isinstance(value, str):
        return next((words for found, words in ODD_TEXTS if found(value)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, and a number must be finite"
    if isinstance(value, Mapping):
        long = any(len(str(key).encode("utf-8", "backslashreplace")) > MAX_NAME * 4 for key in value)
        return ("a name of more than 800 bytes" if long else "") or _odd([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return next(filter(None, map(_odd, value)), "")
    return ""


ODD_TEXTS: tuple[tuple[Callable[[str], Any], str], ...] = (
    (lambda text: "\x00" in text, "a NUL character, and text must have none"),
    (re.compile("[\ud800-\udfff]").search, "half of a character (a lone surrogate), and text must be whole"),
)


def _check_beyond(flow: Flow, values: Mapping[str, Any], effort: validation.Effort) -> None:
    """What a model's author wrote into a schema by hand, in keywords that only a full validator knows."""
    for name, value in values.items():
        schema = {**(flow.properties.get(name) or {}), "$defs": flow.parameters.get("$defs", {})}
        if not validation.beyond(schema):
            continue
        # its library takes 0.2 s to import: not for a server start, nor for a schema that the SDK's reading covers
        error = importlib.import_module("flows.handwritten").first_error(schema, value, effort)
        if error is not None:
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            secret = masking.secrets_in({name: value}, flow.parameters)
            reason = f"{error.validator} does not hold" if secret else str(error.message)[:300]
            raise Refused(name, sentences.unusable(name + where, reason))
