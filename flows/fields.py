"""JSON whose keys keep their order in every database."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


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
