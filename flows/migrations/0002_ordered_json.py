from django.db import migrations

from flows.fields import OrderedJSONField, keep_order


def announce_anew(apps, schema_editor):
    """The order that is lost comes back when a worker announces the flow, which it does not read twice unasked."""
    if schema_editor.connection.vendor == "postgresql":
        apps.get_model("flows", "Flow").objects.update(fingerprint="")


class Migration(migrations.Migration):
    dependencies = [("flows", "0001_initial")]

    operations = [
        keep_order(
            "flows",
            "flow",
            parameters=OrderedJSONField(blank=True, default=dict, help_text="JSON Schema of the flow's parameters"),
            configurations=OrderedJSONField(
                blank=True, default=dict, help_text="Named sets of values; the first is default"
            ),
        ),
        keep_order("flows", "schedule", parameters=OrderedJSONField(blank=True, default=dict)),
        migrations.RunPython(announce_anew, migrations.RunPython.noop),
    ]
