"""Secret parameters of runs, secret variables and answers are encrypted at rest."""

from django.db import migrations
from perfect_client.schema.masking import is_secret

from flows.fields import SealedJSONField, seal_rows
from flows.sealing import ALL


def schema_under(name):
    return ALL if is_secret(str(name), {}, "text") else {}


def schema_of_answer(row):
    form = row.body.get("schema")
    if isinstance(form, dict):
        return {"properties": {"input": form}, "$defs": form.get("$defs") or {}}
    return {"properties": {"value": schema_under(row.body.get("name"))}}


class Migration(migrations.Migration):
    atomic = False  # in batches
    dependencies = [("runs", "0013_request_digest"), ("flows", "0004_secrets")]

    operations = [
        seal_rows("runs", "Run", "parameters", lambda row: row.flow.parameters),
        seal_rows("runs", "Variable", "value", lambda row: schema_under(row.name)),
        seal_rows("runs", "Question", "answer", schema_of_answer),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("run", "parameters", SealedJSONField(default=dict)),
                migrations.AlterField(
                    "variable", "value", SealedJSONField(blank=True, help_text="Any JSON; empty: null", null=True)
                ),
                migrations.AlterField("question", "answer", SealedJSONField(blank=True, null=True)),
            ]
        ),
    ]
