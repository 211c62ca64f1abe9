"""The table of which worker has which flow gets columns of its own; its rows stay."""

import django.db.models.deletion
from django.db import migrations, models
from django.utils import timezone


def begin_rests(apps, schema_editor):
    """Since when a flow without a worker has none was not noted: at the latest since now."""
    flows = apps.get_model("flows", "Flow").objects.filter(offerings=None, archived=False)
    flows.update(resting_since=timezone.now())


def extend_roles(apps, schema_editor):
    """Admins archive flows and forget workers; all roles see which worker offers which flow."""
    Group = apps.get_model("auth", "Group")
    Permission = apps.get_model("auth", "Permission")
    ContentType = apps.get_model("contenttypes", "ContentType")

    def permission(verb, app, model):
        kind, _ = ContentType.objects.get_or_create(app_label=app, model=model)
        codename, name = f"{verb}_{model}", f"Can {verb} {model}"
        return Permission.objects.get_or_create(content_type=kind, codename=codename, defaults={"name": name})[0]

    for group in Group.objects.filter(name__in=("viewer", "operator", "admin")):
        group.permissions.add(permission("view", "runs", "offering"))
    for group in Group.objects.filter(name="admin"):
        group.permissions.add(permission("change", "flows", "flow"), permission("delete", "runs", "worker"))


class Migration(migrations.Migration):
    dependencies = [("runs", "0008_ordered_json"), ("flows", "0003_archive_and_rest")]

    operations = [
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunSQL(
                    "ALTER TABLE runs_worker_flows RENAME TO runs_offering",
                    "ALTER TABLE runs_offering RENAME TO runs_worker_flows",
                )
            ],
            [
                migrations.CreateModel(
                    name="Offering",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                            ),
                        ),
                        (
                            "worker",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="offerings",
                                to="runs.worker",
                            ),
                        ),
                        (
                            "flow",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="offerings",
                                to="flows.flow",
                            ),
                        ),
                    ],
                    options={"ordering": ("pk",), "unique_together": {("worker", "flow")}},
                ),
                migrations.AlterField(
                    "worker",
                    "flows",
                    models.ManyToManyField(
                        blank=True, related_name="workers", through="runs.Offering", to="flows.flow"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            "offering",
            "start",
            models.CharField(blank=True, help_text="How a run's process begins: fork or fresh", max_length=20, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            "offering",
            "start_reason",
            models.TextField(blank=True, help_text="Why not by a fork", default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            "offering",
            "problem",
            models.TextField(blank=True, help_text="Why the newest code of its file is not used", default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            "offering", "notes", models.JSONField(blank=True, default=list, help_text="Remarks about its code")
        ),
        migrations.AddField(
            "attempt",
            "problem",
            models.TextField(
                blank=True, help_text="Why it runs its worker's last good code and not the newest", default=""
            ),
            preserve_default=False,
        ),
        migrations.AddField("worker", "forgotten_at", models.DateTimeField(blank=True, null=True)),
        migrations.RunPython(begin_rests, migrations.RunPython.noop),
        migrations.RunPython(extend_roles, migrations.RunPython.noop),
    ]
