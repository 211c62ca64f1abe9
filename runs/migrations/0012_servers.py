"""Which server process a worker is connected to."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0011_worker_draining")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="server",
            field=models.IntegerField(
                db_default=0, default=0, help_text="The server process that it is, or was last, connected to"
            ),
        ),
    ]
