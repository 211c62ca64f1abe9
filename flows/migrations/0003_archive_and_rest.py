from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("flows", "0002_ordered_json")]

    operations = [
        migrations.AddField(
            "flow",
            "archived_by",
            models.CharField(
                blank=True,
                default="",
                help_text="Who archived it; empty: only calls inside other flows are known of it",
                max_length=200,
            ),
            preserve_default=False,
        ),
        migrations.AddField("flow", "archived_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            "flow",
            "resting_since",
            models.DateTimeField(
                blank=True, help_text="Since when no worker offers it; its schedules rest until one does", null=True
            ),
        ),
    ]
