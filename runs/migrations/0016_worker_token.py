"""With which token each worker joined."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0015_sign_in")]

    operations = [
        migrations.AddField(
            "worker",
            "token",
            models.ForeignKey(
                blank=True,
                help_text="With which it joined: its identity is this token's while that is valid",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="workers",
                to="runs.token",
            ),
        ),
    ]
