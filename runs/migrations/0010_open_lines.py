from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0009_offering")]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="open_lines",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text="[time, level, task, message] of each line that has begun and not ended",
            ),
        ),
    ]
