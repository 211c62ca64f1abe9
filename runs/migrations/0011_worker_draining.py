"""Which processes of a worker drain, and how many runs they wait for."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0010_open_lines")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="draining",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="Connected processes of it that take no new run: boot → runs they wait for",
            ),
        ),
    ]
