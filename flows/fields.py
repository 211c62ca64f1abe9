"""JSON whose keys keep their order in every database, and JSON whose secrets are encrypted there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import migrations, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from perfect_client.schema.masking import Schema

from flows import sealing

BATCH = 500  # rows that a migration encrypts in one transaction


class OrderedJSONField(models.JSONField):
    """A ``JSONField`` for what is read as a whole and has an order that means something.

    PostgreSQL's ``jsonb`` sorts keys by their length; its ``json`` keeps the text, but cannot be compared or indexed.
    """

    def db_type(self, connection: Any) -> str | None:
        return "json" if connection.vendor == "postgresql" else super().db_type(connection)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        adapted = super().get_db_prep_value(value, connection, prepared)
        if connection.vendor != "postgresql" or not hasattr(adapted, "dumps"):
            return adapted
        from psycopg.types.json import Json  # heavy: the driver of this database alone

        return Json(adapted.obj, dumps=adapted.dumps)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """PostgreSQL's driver has read ``json`` already."""
        return value if connection.vendor == "postgresql" else super().from_db_value(value, expression, connection)


class SealedJSONField(OrderedJSONField):
    """JSON whose secrets stand encrypted in the row; the attribute always has the plain value.

    ``schema`` gives the JSON Schema of a row's value, which says what is secret in it. Where a value is written without
    its row, as by ``update()``, all of it counts as secret. What no key opens is read as ``sealing.Unreadable``.
    """

    def __init__(self, *args: Any, schema: Callable[[Any], Schema] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._schema = schema  # not deconstructed: migrations read and write rows without it

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        if not value or self._schema is None or hasattr(value, "resolve_expression"):
            return value
        return _Sealed(sealing.seal(value, self._schema(model_instance)))

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, _Sealed):
            value = value.value
        elif value and not hasattr(value, "resolve_expression"):
            value = sealing.seal(value, sealing.ALL)
        return super().get_db_prep_save(value, connection)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if isinstance(value, str) and connection.vendor != "postgresql" and sealing.MARK not in value:
            return super().from_db_value(value, expression, connection)  # most rows: not worth a walk
        return sealing.unseal(super().from_db_value(value, expression, connection))


class _Sealed:
    """A value whose secrets are encrypted, on its way to the row."""

    def __init__(self, value: Any) -> None:
        self.value = value


def keep_order(app: str, model: str, **fields: OrderedJSONField) -> migrations.SeparateDatabaseAndState:
    """The operation that makes these columns ordered: on PostgreSQL another type, elsewhere they are as they were."""

    def change(to: str) -> Any:
        def alter(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
            if schema_editor.connection.vendor == "postgresql":
                quoted = [schema_editor.quote_name(name) for name in fields]
                columns = ", ".join(f"ALTER COLUMN {name} TYPE {to} USING {name}::{to}" for name in quoted)
                table = schema_editor.quote_name(f"{app}_{model}")
                schema_editor.execute(f"ALTER TABLE {table} {columns}")

        return alter

    return migrations.SeparateDatabaseAndState(
        [migrations.RunPython(change("json"), change("jsonb"))],
        [migrations.AlterField(model, name, field) for name, field in fields.items()],
    )


def seal_rows(app: str, model: str, column: str, schema: Callable[[Any], Schema]) -> migrations.RunPython:
    """The operation that encrypts the secrets in rows that were written before there was a key.

    In batches that are a transaction each, and without rows that are encrypted already: so it can be stopped and begun
    again. It must come before the column's own ``SealedJSONField``, in a migration that is not ``atomic``.
    """

    def encrypt(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
        database = schema_editor.connection
        rows = apps.get_model(app, model).objects.using(database.alias).order_by("pk").select_for_update(of=("self",))
        if any(field.name == "flow" for field in rows.model._meta.fields):
            rows = rows.select_related("flow")
        if database.vendor == "sqlite":  # or the plain values stay in the file where they stood
            schema_editor.execute("PRAGMA secure_delete = ON")
        last: Any = None
        while True:
            with transaction.atomic(using=database.alias):
                batch = list((rows if last is None else rows.filter(pk__gt=last))[:BATCH])
                for row in batch:
                    value = getattr(row, column)
                    sealed = sealing.seal(value, schema(row)) if value and sealing.unseal(value) == value else value
                    if sealed != value:
                        rows.filter(pk=row.pk).update(**{column: sealed})
            if not batch:
                return
            last = batch[-1].pk

    return migrations.RunPython(encrypt, migrations.RunPython.noop, atomic=False)
