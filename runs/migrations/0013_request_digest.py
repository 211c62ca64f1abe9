"""What an idempotency key was used for."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0012_servers")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="request_digest",
            field=models.CharField(
                blank=True, default="", max_length=64, help_text="Of the request that the key was used for"
            ),
            preserve_default=False,
        ),
    ]
