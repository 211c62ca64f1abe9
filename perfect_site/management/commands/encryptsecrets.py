"""``manage.py encryptsecrets``: encrypt all secrets anew with the newest key, before an old key is taken away."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import TextField
from django.db.models.functions import Cast

from flows import sealing
from flows.models import Schedule, Version
from runs.models import Question, Run, Variable

BATCH = 500
SEALED: tuple[tuple[Any, ...], ...] = (
    (Schedule, "parameters", "flow"),
    (Run, "parameters", "flow"),
    (Variable, "value"),
    (Question, "answer"),
    (Version, "spec"),
)


class Command(BaseCommand):
    help = "Encrypt all secrets anew with the newest key of PERFECT_ENCRYPTION_KEY."

    def handle(self, *args: Any, **options: Any) -> None:
        done = unreadable = 0
        for model, column, *related in SEALED:
            rows = model._default_manager.annotate(text=Cast(column, TextField())).filter(text__contains=sealing.MARK)
            for keys in _batches(list(rows.order_by("pk").values_list("pk", flat=True))):
                with transaction.atomic():
                    for row in rows.filter(pk__in=keys).select_related(*related).select_for_update(of=("self",)):
                        if sealing.unreadable(getattr(row, column)):
                            unreadable += 1
                        else:
                            row.save(update_fields=[column])
                            done += 1
        self.stdout.write(f"{done:,} rows are encrypted with the newest key.")
        if unreadable:
            raise CommandError(f"{unreadable:,} rows were left as they are: they were encrypted with another key.")


def _batches(keys: list[Any]) -> list[list[Any]]:
    return [keys[at : at + BATCH] for at in range(0, len(keys), BATCH)]
