"""Which version of a flow's code each worker has."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("flows", "0005_versions"), ("runs", "0016_worker_token")]

    operations = [
        migrations.AddField(
            "offering",
            "version",
            models.ForeignKey(
                help_text="Of its code there",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="offerings",
                to="flows.version",
            ),
        ),
    ]
