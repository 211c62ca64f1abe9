"""Statements of the hot path: SQL written once from the model, run with plain values.

A run makes about fifteen statements. Django's query compiler spends ten times as long on each as SQLite does, so what
every start, fact and end needs goes this way; everything else uses query sets. The model stays the only place that
knows the columns. SQLite and PostgreSQL understand the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from django.db import connection, models

from flows.fields import SealedJSONField

Model = type[models.Model]
M = TypeVar("M", bound=models.Model)
Prepare = Callable[[Any, Any], Any]


def find(model: type[M], **where: Any) -> M | None:
    """The first row where all of ``where`` holds; keys are attributes."""
    tests = " AND ".join(f"{_column(model, name)} = %s" for name in where)
    parameters = [_prepared(model, name, value) for name, value in where.items()]
    found = model._default_manager.raw(f"SELECT * FROM {model._meta.db_table} WHERE {tests} LIMIT 1", parameters)
    return next(iter(found), None)


def insert(rows: Sequence[models.Model], *, replacing: Sequence[str] = ()) -> None:
    """Insert rows of one model, whose automatic keys stay unknown to them.

    ``replacing`` names the attributes of a unique constraint: a row that is there already takes the new values.
    """
    if rows:
        sql, values_of = _insert_of(type(rows[0]), tuple(replacing))
        with connection.cursor() as cursor:
            cursor.executemany(sql, [values_of(row) for row in rows])


def insert_values(model: Model, names: Sequence[str], rows: Sequence[Sequence[Any]], **common: Any) -> None:
    """Insert rows given as the values of ``names``, each with what is ``common`` to all: for what comes by the ten
    thousand, where an instance of the model costs more than the disk."""
    if rows:
        constant = [_prepared(model, name, value) for name, value in common.items()]
        preparations = [_preparation(model, name) for name in names]
        columns = [
            [prepare(value, connection) for value in column] if prepare is not _as_it_is else column
            for prepare, column in zip(preparations, zip(*rows, strict=True), strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(
                _insert_into(model, (*common, *names)), [(*constant, *row) for row in zip(*columns, strict=True)]
            )


def insert_one(row: models.Model) -> None:
    """Insert a row and tell it its automatic key."""
    sql, values_of = _insert_of(type(row), ())
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {_key(type(row))}", values_of(row))
        (row.pk,) = cursor.fetchone()


def swap(
    model: Model, where: Mapping[str, Any], values: Mapping[str, Any], *, grow: Mapping[str, int] | None = None
) -> bool:
    """Compare and swap: set ``values`` and add ``grow`` where all of ``where`` holds (None: IS NULL).

    Keys are attributes, as in ``run_id``. Returns whether a row was changed.
    """
    grow = grow or {}
    given = {name: value for name, value in where.items() if value is not None}
    sql = _update_of(model, tuple(values), tuple(grow), tuple(where), tuple(given))
    parameters = [
        *[_prepared(model, name, value) for name, value in values.items()],
        *grow.values(),
        *[_prepared(model, name, value) for name, value in given.items()],
    ]
    with connection.cursor() as cursor:
        return bool(cursor.execute(sql, parameters).rowcount > 0)


# ------------------------------------------------------------------------------------------------- built only once


@cache
def _insert_of(model: Model, replacing: tuple[str, ...]) -> tuple[str, Callable[[Any], list[Any]]]:
    fields = [field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)]
    sql = _insert_into(model, tuple(field.attname for field in fields))
    if replacing:
        unique = ", ".join(_column(model, name) for name in replacing)
        others = [_column(model, field.attname) for field in fields if field.attname not in replacing]
        sql += f" ON CONFLICT ({unique}) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others)
    return sql, _reader(model, fields)


def _reader(model: Model, fields: Sequence[models.Field[Any, Any]]) -> Callable[[Any], list[Any]]:
    """A row's values as the driver takes them. Most are that already, and many are None: those cost nothing more."""
    read = attrgetter(*[field.attname for field in fields])
    preparations = [_preparation(model, field.attname) for field in fields]
    others = [(index, prepare) for index, prepare in enumerate(preparations) if prepare is not _as_it_is]
    sealed = [(index, field) for index, field in enumerate(fields) if isinstance(field, SealedJSONField)]

    def values_of(row: Any) -> list[Any]:
        values = list(read(row))
        for index, field in sealed:  # what is secret in it, its row says
            values[index] = field.pre_save(row, add=True)
        for index, prepare in others:
            if values[index] is not None:
                values[index] = prepare(values[index], connection)
        return values

    return values_of


@cache
def _insert_into(model: Model, names: tuple[str, ...]) -> str:
    columns = ", ".join(_column(model, name) for name in names)
    return f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({', '.join(['%s'] * len(names))})"


@cache
def _update_of(
    model: Model, values: tuple[str, ...], grow: tuple[str, ...], where: tuple[str, ...], given: tuple[str, ...]
) -> str:
    changes = [f"{_column(model, name)} = %s" for name in values]
    changes += [f"{_column(model, name)} = {_column(model, name)} + %s" for name in grow]
    # What is compared with a value comes first, in the order of the parameters.
    tests = [f"{_column(model, name)} = %s" for name in given]
    tests += [f"{_column(model, name)} IS NULL" for name in where if name not in given]
    return f"UPDATE {model._meta.db_table} SET {', '.join(changes)} WHERE {' AND '.join(tests)}"


@cache
def _fields(model: Model) -> dict[str, models.Field[Any, Any]]:
    return {field.attname: field for field in model._meta.concrete_fields}


def _column(model: Model, name: str) -> str:
    return f'"{_fields(model)[name].column}"'


def _key(model: Model) -> str:
    return next(_column(model, name) for name, field in _fields(model).items() if field.primary_key)


@cache
def _preparation(model: Model, name: str) -> Prepare:
    """How a value becomes what the driver takes; most values are that already."""
    field = _fields(model)[name]
    plain = (models.CharField, models.TextField, models.IntegerField, models.FloatField, models.BooleanField)
    return _as_it_is if isinstance(field, plain) else field.get_db_prep_save


def _as_it_is(value: Any, connection: Any) -> Any:
    return value


def _prepared(model: Model, name: str, value: Any) -> Any:
    return _preparation(model, name)(value, connection)
