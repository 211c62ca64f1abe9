"""Artifacts as the pages and the API show them: the newest of each key first, and of long ones a beginning."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from django.utils.safestring import SafeString
from perfect_client.wire import artifact_content

from perfect_site.dashboard import markdown
from runs.models import Artifact, ArtifactQuerySet, Run
from runs.rules import artifacts
from runs.services.queries import iso, task_names

SHOWN = 20  # on the run's page
WHOLE_TEXT, WHOLE_ROWS = 128 * 1024, 1_000  # bytes and rows on an artifact's own page
ANSWER_BYTES = 8 << 20  # of one page of the API, unless a single artifact has more
LIGHT = ("data", "content")  # what a page of many does not read
KINDS = {
    artifact_content.LINK: "link",
    artifact_content.MARKDOWN: "text",
    artifact_content.TABLE: "table",
    artifact_content.PROGRESS: "progress",
    artifact_content.IMAGE: "picture",
    artifact_content.PLOT: "plot",
}
EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    artifact_content.SVG: "svg",
}

# No user, no blanks, no backslash: what this matches every browser reads alike, and it fits into a policy.
_PICTURE = re.compile(r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(?:[/?#][^\s\\]*)?", re.I)


@dataclass(frozen=True)
class ArtifactPresenter:
    """One artifact. ``text`` is as much of it as is shown; ``versions`` counts those of its key in the run."""

    row: Artifact
    text: str
    rows_shown: int = artifacts.HEAD_ROWS
    task: str = ""
    versions: int = 1

    @property
    def title(self) -> str:
        return self.row.key or KINDS[self.row.kind].capitalize()

    @property
    def word(self) -> str:
        return KINDS[self.row.kind]

    @property
    def is_picture(self) -> bool:
        """Whether its bytes are here."""
        return bool(self.row.media_type)

    @property
    def alt(self) -> str:
        return self.row.description or self.title

    @cached_property
    def link(self) -> artifacts.Link:
        return artifacts.link_of(self.text)

    @cached_property
    def percent(self) -> float:
        return artifacts.percent_of(self.text)

    @cached_property
    def table(self) -> artifacts.Table:
        return artifacts.table_of(self.text)

    @property
    def heads(self) -> list[tuple[str, bool]]:
        """The columns' names, if they have some, and whether numbers stand below."""
        columns, first = self.table.columns or [], self.table.rows[0] if self.table.rows else []
        numeric = [isinstance(cell, int | float) and not isinstance(cell, bool) for cell in first]
        return [(name, number < len(numeric) and numeric[number]) for number, name in enumerate(columns)]

    @property
    def width(self) -> int:
        """Columns that are shown."""
        columns = self.table.columns
        return len(columns) if columns is not None else max(map(len, self.table.rows), default=0)

    @property
    def is_wide(self) -> bool:
        return self.row.kind == artifact_content.TABLE and self.width > 4

    @property
    def html(self) -> SafeString:
        return markdown.rendered(self.text)

    @property
    def is_cut(self) -> bool:
        """Whether a string has more than is shown."""
        return self.row.kind == artifact_content.MARKDOWN and len(self.text.encode()) < self.row.size

    @property
    def origin(self) -> str:
        """Scheme and host of a picture from elsewhere, as a policy names them; empty if its address is not plain."""
        found = _PICTURE.fullmatch(self.text)
        return found[1].lower() if found and not self.is_picture else ""

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2]

    @property
    def downloads(self) -> list[str]:
        return _DOWNLOADS.get(self.row.kind, []) if not self.is_picture else []


_DOWNLOADS = {artifact_content.TABLE: ["csv", "json"], artifact_content.MARKDOWN: ["md"]}


@dataclass(frozen=True)
class ArtifactPanel:
    """What a run's page shows of its artifacts; ``count`` is of all, earlier ones of a key included."""

    run: Run
    exhibits: Sequence[ArtifactPresenter] = ()
    count: int = 0


def artifacts_of(run: Run) -> ArtifactQuerySet:
    """What the run shows: with all that was called in it, or, of a sub-run, what it showed itself."""
    if run.root_id is None:
        return Artifact.objects.filter(run=run.pk).whole()
    return Artifact.objects.filter(run=run.root_id, subrun=run.pk).whole()


def panel_of(run: Run) -> ArtifactPanel:
    """The newest of each key, newest first. One query for a run without artifacts would be one too many."""
    if not run.artifact_writes:
        return ArtifactPanel(run)
    listed = list(artifacts_of(run).order_by("-pk").values_list("pk", "key"))
    versions: dict[str, list[int]] = {}
    for pk, key in listed:
        versions.setdefault(key or f"#{pk}", []).append(pk)
    counts = {pks[0]: len(pks) for pks in list(versions.values())[:SHOWN]}
    rows = Artifact.objects.filter(pk__in=counts).defer(*LIGHT).order_by("-pk")
    return ArtifactPanel(run, [_exhibit(row, names, counts[row.pk]) for row, names in _named(run, rows)], len(listed))


def index_of(run: Run, key: str) -> list[ArtifactPresenter]:
    """All of them, or those of a key, newest first, without what they hold."""
    rows = artifacts_of(run).defer(*LIGHT, "head").order_by("-pk")
    rows = rows.filter(key=key) if key else rows
    return [
        ArtifactPresenter(row, "", task=names.get((row.attempt, row.task or 0), "")) for row, names in _named(run, rows)
    ]


def _named(run: Run, rows: Iterable[Artifact]) -> list[tuple[Artifact, dict[tuple[int, int], str]]]:
    found = list(rows)
    names = task_names(run, {row.task for row in found if row.task})
    return [(row, names) for row in found]


def _exhibit(row: Artifact, names: dict[tuple[int, int], str], versions: int) -> ArtifactPresenter:
    return ArtifactPresenter(row, row.head, task=names.get((row.attempt, row.task or 0), ""), versions=versions)


def present_whole(row: Artifact) -> ArtifactPresenter:
    """As its own page shows it: all, or as much as a browser bears."""
    names = task_names(row.run, {row.task} if row.task else set())
    text = row.data
    if row.kind == artifact_content.TABLE:
        table = artifacts.head_of(artifacts.table_of(text), rows=WHOLE_ROWS, most=WHOLE_TEXT)
        text = msgspec.json.encode(table).decode()
    elif row.kind == artifact_content.MARKDOWN:
        text = artifacts.beginning(text, WHOLE_TEXT)
    versions = artifacts_of(row.run).filter(key=row.key).count() if row.key else 1
    return ArtifactPresenter(row, text, WHOLE_ROWS, names.get((row.attempt, row.task or 0), ""), versions)


def as_csv(text: str) -> str:
    """A table for a spreadsheet (RFC 4180). A text that it would take for a formula begins with an apostrophe."""
    table = artifacts.table_of(text)
    file = io.StringIO()
    writer = csv.writer(file)
    if table.columns is not None:
        writer.writerow(map(_harmless, table.columns))
    writer.writerows(map(_harmless, row) for row in table.rows)
    return file.getvalue()


def _harmless(cell: artifacts.Cell) -> artifacts.Cell:
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(cell):
        return "'" + cell
    return cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------- for the API


def list_artifacts(run: Run, *, key: str, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """In the order in which they were made, and the last one's number if there are more."""
    rows = artifacts_of(run).filter(pk__gt=after).order_by("pk")
    sizes = list((rows.filter(key=key) if key else rows).values_list("pk", "size")[: limit + 1])
    chosen: list[int] = []
    left = ANSWER_BYTES
    for pk, size in sizes[:limit]:
        left -= size
        if left < 0 and chosen:
            break
        chosen.append(pk)
    found = _named(run, Artifact.objects.filter(pk__in=chosen).order_by("pk"))
    items = [artifact_json(row, names.get((row.attempt, row.task or 0))) for row, names in found]
    return items, chosen[-1] if len(chosen) < len(sizes) else None


def artifact_json(row: Artifact, task: str | None) -> dict[str, Any]:
    return {
        "id": str(row.uid),
        "kind": row.kind,
        "key": row.key or None,
        "description": row.description,
        "task": task,
        "attempt": row.attempt,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "data": _data(row),
        "url": f"/runs/{row.run_id}/artifacts/{row.uid}/",
    }


def _data(row: Artifact) -> Any:
    """Text, ``{link, text}``, ``{columns, rows}``, 0–100; a picture as an address: its own, or ``data:``."""
    if row.content is not None:
        return f"data:{row.media_type};base64,{base64.b64encode(row.content).decode()}"
    if row.kind in (artifact_content.LINK, artifact_content.TABLE, artifact_content.PROGRESS):
        return msgspec.json.decode(row.data)
    return row.data
