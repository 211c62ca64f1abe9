"""The artifacts of one attempt as a batch changes them: parts are put together, limits kept, rows written once."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Sum
from perfect_client.wire import artifact_content
from perfect_client.wire.messages import ArtifactWritten, clean_text

from flows.statements import find, insert
from runs.models import Artifact
from runs.rules import artifacts

MOST_PARTS = 64
ONE_ARTIFACT = ("run_id", "attempt", "uid")  # what an artifact is known by


class ArtifactParts:
    """Reads nothing before the first artifact, and keeps no content between batches."""

    def __init__(self, run_id: UUID, attempt: int) -> None:
        self._run_id, self._attempt = run_id, attempt
        self._totals: tuple[int, int] | None = None  # artifacts of the run, and their bytes
        self._changed: dict[UUID, Artifact] = {}

    def write(self, fact: ArtifactWritten, at: datetime, subrun: UUID | None = None) -> None:
        """Take one part in, of what a sub-run shows if one is named. Raises ``ValueError``, and changes nothing, where
        it cannot be taken."""
        uid, text = UUID(fact.artifact), fact.coded or fact.data
        known = self._changed.get(uid) or find(Artifact, run_id=self._run_id, attempt=self._attempt, uid=uid)
        row = self._begun(fact, uid, known, at, subrun) if fact.part == 1 else self._continued(fact, uid, known)
        totals = self._totals_with(fact, row, None if row is known else known)
        found = None
        if fact.part == fact.parts:
            found = artifacts.content_of(fact.kind, row.data + text, coded=bool(fact.coded))
        row.data, row.parts_seen, row.size, row.updated_at = row.data + text, fact.part, row.size + _size(fact), at
        if found is not None:
            row.data, row.content, row.media_type = found.data, found.content, found.media_type
            row.head, row.rows = found.head, found.rows
        self._totals, self._changed[uid] = totals, row

    def _begun(
        self, fact: ArtifactWritten, uid: UUID, known: Artifact | None, at: datetime, subrun: UUID | None
    ) -> Artifact:
        """A new artifact, or one that is written anew: that keeps its place, its key and, unless told, its words."""
        if fact.kind not in artifact_content.KINDS:
            raise ValueError(f"there is no kind of artifact {fact.kind[:40]!r}")
        if not 1 <= fact.parts <= MOST_PARTS:
            raise ValueError(f"an artifact has 1 to {MOST_PARTS} parts, not {fact.parts}")
        if known is not None and known.kind != fact.kind:
            raise ValueError(f"artifact {uid} is a {known.kind} and cannot become a {fact.kind}")
        if fact.task is not None and not 0 <= fact.task < 2**31:
            raise ValueError(f"{fact.task} is not the number of a task run")
        words = clean_text(fact.description, artifact_content.MAX_DESCRIPTION_BYTES)
        return Artifact(
            run_id=self._run_id,
            attempt=self._attempt,
            uid=uid,
            kind=fact.kind,
            parts=fact.parts,
            key=known.key if known else clean_text(fact.key, artifact_content.MAX_KEY),
            description=words or (known.description if known else ""),
            task=known.task if known else fact.task,
            subrun=known.subrun if known else subrun,
            created_at=known.created_at if known else at,
        )

    def _continued(self, fact: ArtifactWritten, uid: UUID, known: Artifact | None) -> Artifact:
        if known is None or (known.kind, known.parts, known.parts_seen) != (fact.kind, fact.parts, fact.part - 1):
            raise ValueError(f"part {fact.part} of {fact.parts} of artifact {uid} follows nothing that has come")
        return known

    def _totals_with(self, fact: ArtifactWritten, row: Artifact, replaced: Artifact | None) -> tuple[int, int]:
        """What the run has with this part. Raises ``ValueError`` if that is more than it may have."""
        if self._totals is None:
            found = Artifact.objects.filter(run_id=self._run_id).aggregate(count=Count("pk"), size=Sum("size"))
            self._totals = found["count"], found["size"] or 0
        if row.size + _size(fact) > artifact_content.MAX_BYTES:
            raise ValueError(f"artifact {row.uid} is larger than {artifact_content.MAX_BYTES:,} bytes")
        count = self._totals[0] + (fact.part == 1 and replaced is None)
        size = self._totals[1] + _size(fact) - (replaced.size if replaced is not None else 0)
        if count > artifact_content.MAX_RUN_COUNT or size > artifact_content.MAX_RUN_BYTES:
            mebibytes = artifact_content.MAX_RUN_BYTES >> 20
            raise ValueError(f"a run may have {artifact_content.MAX_RUN_COUNT:,} artifacts of {mebibytes} MiB together")
        return count, size

    def save(self) -> Counter[UUID]:
        """Write what has changed; returns how many artifacts that were, of the run and of each sub-run."""
        rows = list(self._changed.values())
        insert(rows, replacing=ONE_ARTIFACT)
        self._changed.clear()
        counts = Counter(row.subrun for row in rows if row.subrun is not None)
        counts[self._run_id] = len(rows)
        return counts


def _size(fact: ArtifactWritten) -> int:
    """Bytes; of base64 what it stands for."""
    return len(fact.coded) * 3 // 4 - fact.coded.count("=") if fact.coded else len(fact.data.encode())
