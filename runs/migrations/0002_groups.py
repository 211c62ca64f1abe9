"""The three roles as Django groups: a viewer sees, an operator acts, an admin configures."""

from django.db import migrations

SEEN = [("flows", m) for m in ("flow", "task", "schedule")] + [
    ("runs", m) for m in ("run", "attempt", "taskrun", "logline", "event", "worker", "quarantine")
]
ACTS = {
    ("flows", "flow"): [("trigger_flow", "Can run a flow")],
    ("flows", "schedule"): [("pause_schedule", "Can pause and resume a schedule")],
    ("runs", "run"): [("cancel_run", "Can cancel a run"), ("retry_run", "Can run a run again")],
}
CONFIGURED = [("flows", "schedule"), ("runs", "token"), ("auth", "user"), ("auth", "group")]


def make_groups(apps, schema_editor):
    Group = apps.get_model("auth", "Group")
    Permission = apps.get_model("auth", "Permission")
    ContentType = apps.get_model("contenttypes", "ContentType")

    def permission(app, model, codename, name):
        # Django makes permissions after the last migration; the rows made here are the ones that it finds then.
        kind, _ = ContentType.objects.get_or_create(app_label=app, model=model)
        return Permission.objects.get_or_create(content_type=kind, codename=codename, defaults={"name": name})[0]

    sees = [permission(app, model, f"view_{model}", f"Can view {model}") for app, model in SEEN]
    acts = [permission(*key, *act) for key, rows in ACTS.items() for act in rows]
    configures = [
        permission(app, model, f"{verb}_{model}", f"Can {verb} {model}")
        for app, model in CONFIGURED
        for verb in ("add", "change", "delete", "view")
    ]
    for name, permissions in (("viewer", sees), ("operator", sees + acts), ("admin", sees + acts + configures)):
        Group.objects.get_or_create(name=name)[0].permissions.add(*permissions)


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(make_groups, migrations.RunPython.noop)]
