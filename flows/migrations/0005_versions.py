"""Versions of flows' code, and who changed what a flow takes."""

import django.db.models.deletion
from django.db import migrations, models

from flows.fields import SealedJSONField


class Migration(migrations.Migration):
    dependencies = [("flows", "0004_secrets")]

    operations = [
        migrations.CreateModel(
            name="Change",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("time", models.DateTimeField()),
                ("who", models.CharField(help_text="The worker, and its token", max_length=450)),
                ("what", models.TextField()),
                (
                    "flow",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="changes", to="flows.flow"
                    ),
                ),
            ],
            options={"ordering": ("-pk",)},
        ),
        migrations.CreateModel(
            name="Version",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("fingerprint", models.CharField(max_length=64)),
                (
                    "source_at",
                    models.DateTimeField(blank=True, help_text="When its source changed, as was first told", null=True),
                ),
                ("seen_at", models.DateTimeField(help_text="When it was first announced")),
                ("spec", SealedJSONField()),
                (
                    "flow",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="versions", to="flows.flow"
                    ),
                ),
            ],
            options={
                "ordering": ("pk",),
                "constraints": [models.UniqueConstraint(fields=("flow", "fingerprint"), name="version_once")],
            },
        ),
    ]
