"""Tables of any values as JSON has them: bounded, harmless to who reads them, with secrets taken out before a cut."""

from __future__ import annotations

import math
import operator
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from perfect_client.core.previews import preview
from perfect_client.schema.secrets import of_this_process
from perfect_client.wire import artifact_content
from perfect_client.wire.messages import clean_text

MAX_CELL_BYTES = 4 * 1024
_LARGEST_WHOLE = 2**53  # what every reader of JSON keeps exactly
_LEAST_ROW = len("[0],")
_CONTAINERS = (list, tuple, dict, set, frozenset, bytes, bytearray, memoryview)


def table_of(table: Any) -> Dict[str, Any]:
    """``{"columns": [text, …] or None, "rows": [[cell, …], …]}``."""
    if isinstance(table, Mapping):
        return _of_columns(table)
    if isinstance(table, (list, tuple)):
        _refuse_too_many(table)
        if table and isinstance(table[0], Mapping):
            return _of_records(table)
        return {"columns": None, "rows": [_row(row, number) for number, row in enumerate(table, 1)]}
    raise TypeError(
        "create_table_artifact() takes a dict of lists, a list of dicts or a list of lists, not %s"
        % type(table).__name__
    )


def _of_columns(table: Mapping[Any, Any]) -> Dict[str, Any]:
    _refuse_too_wide(len(table))
    columns = [_values(values, "the column %s" % preview(name)) for name, values in table.items()]
    length = max(map(len, columns), default=0)
    for values in columns:
        _refuse_too_many(values)
        values.extend([None] * (length - len(values)))
    rows = [[_cell(value) for value in row] for row in zip(*columns)]
    return {"columns": [_cell(to_text(name)) for name in table], "rows": rows}


def _of_records(table: Sequence[Any]) -> Dict[str, Any]:
    names: Dict[Any, None] = {}
    for number, row in enumerate(table, 1):
        if not isinstance(row, Mapping):
            raise TypeError(
                "row %d of create_table_artifact() must be a dict as the first, not %s" % (number, type(row).__name__)
            )
        names.update(dict.fromkeys(row))
        _refuse_too_wide(len(names))
    rows = [[_cell(row.get(name)) for name in names] for row in table]
    return {"columns": [_cell(to_text(name)) for name in names], "rows": rows}


def _row(row: Any, number: int) -> List[Any]:
    values = _values(row, "row %d" % number)
    _refuse_too_wide(len(values))
    return [_cell(value) for value in values]


def _values(values: Any, what: str) -> List[Any]:
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping)):
        return list(values)
    raise TypeError("%s of create_table_artifact() must be a list, not %s" % (what, type(values).__name__))


def _refuse_too_many(rows: Sequence[Any]) -> None:
    """Before an hour is spent on what cannot fit."""
    if len(rows) * _LEAST_ROW > artifact_content.MAX_BYTES:
        raise ValueError(
            "the table has %d rows, which do not fit into %d MiB" % (len(rows), artifact_content.MAX_BYTES >> 20)
        )


def _refuse_too_wide(count: int) -> None:
    if count > artifact_content.MAX_COLUMNS:
        raise ValueError("the table has %d columns; it may have %d" % (count, artifact_content.MAX_COLUMNS))


def _cell(value: Any) -> Any:
    """As JSON has it: None, true, a number, or a string of at most 4 KiB; NaN is nothing. No secret stands in it."""
    plain = _plain(value)
    if isinstance(plain, str):
        return short(plain, MAX_CELL_BYTES)
    if plain is None or isinstance(plain, bool) or not of_this_process:
        return plain
    text = repr(plain)
    hidden = of_this_process.without(text)
    return plain if hidden == text else hidden


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    try:
        whole = operator.index(value)  # also numpy's numbers
    except Exception:
        return to_text(value)
    return int(whole) if -_LARGEST_WHOLE <= whole <= _LARGEST_WHOLE else to_text(whole)


def to_text(value: Any) -> str:
    """The text of any object, whatever its methods do."""
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, too
    if isinstance(value, _CONTAINERS):
        return preview(value)
    try:
        return str(value)
    except Exception:  # also an integer of more digits than Python writes
        return preview(value)


def clean(text: str) -> str:
    return artifact_content.legible(clean_text(text, len(text) * 16 + 64))


def short(text: str, limit: int) -> str:
    """Clean, and cut to so many bytes: without secrets before that, since half of one would not be found any more."""
    return artifact_content.legible(clean_text(of_this_process.without(text), limit))
