"""Secret parameters of schedules are encrypted at rest; flows keep no secret of those who announced them."""

from django.db import migrations
from perfect_client.schema import masking

from flows.fields import SealedJSONField, seal_rows


def forget_secrets(apps, schema_editor):
    """Workers of earlier versions announced defaults and configurations with the secrets in them."""
    for flow in apps.get_model("flows", "Flow").objects.iterator():
        flow.configurations = {
            name: masking.mask(values, flow.parameters) for name, values in flow.configurations.items()
        }
        flow.parameters = masking.mask_schema(flow.parameters)
        flow.save(update_fields=["parameters", "configurations"])


class Migration(migrations.Migration):
    atomic = False  # in batches
    dependencies = [("flows", "0003_archive_and_rest")]

    operations = [
        seal_rows("flows", "Schedule", "parameters", lambda row: row.flow.parameters),
        migrations.RunPython(forget_secrets, migrations.RunPython.noop),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("schedule", "parameters", SealedJSONField(blank=True, default=dict))
            ]
        ),
    ]
