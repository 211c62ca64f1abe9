"""Artifacts: what code shows on its run's page, and keeps with the run.

``create_markdown_artifact("# Done")`` keeps a string; the others keep links, tables, pictures, plots and progress.
Each function returns the artifact's id, and so does its awaitable twin (``acreate_…``). Outside a run they check what
they are given, and nothing else happens.
"""

from __future__ import annotations

import base64
import io
import math
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Dict, Generator, Optional

from perfect_client.artifacts import tables
from perfect_client.core import context
from perfect_client.core.previews import preview
from perfect_client.core.runs import Run, Throttle, new_id
from perfect_client.schema.secrets import of_this_process
from perfect_client.wire import artifact_content, messages
from perfect_client.wire.artifact_content import IMAGE, LINK, MARKDOWN, PLOT, PROGRESS, TABLE
from perfect_client.wire.messages import ArtifactWritten

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")


class ArtifactId(str):
    """A UUID as text. Asynchronous code may ``await`` it, as programs written for Prefect do."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, ArtifactId]:
        return self
        yield


# ------------------------------------------------------------------------------------------------- what people call


def create_link_artifact(
    link: str, link_text: Optional[str] = None, key: Optional[str] = None, description: Optional[str] = None
) -> ArtifactId:
    """Show a link. What is no ``http:``, ``https:`` or ``mailto:`` address is shown as text."""
    address = _text(link, "create_link_artifact()", "a link")
    shown = _text(link_text, "create_link_artifact()", "a link_text") if link_text is not None else ""
    return _create(LINK, key, description, messages.dumps({"link": tables.clean(address), "text": tables.clean(shown)}))


def create_markdown_artifact(markdown: str, key: Optional[str] = None, description: Optional[str] = None) -> ArtifactId:
    """Show text as Markdown (CommonMark with tables); HTML in it is shown as text, pictures as links."""
    return _create(
        MARKDOWN, key, description, tables.clean(_text(markdown, "create_markdown_artifact()", "a markdown"))
    )


def create_table_artifact(table: Any, key: Optional[str] = None, description: Optional[str] = None) -> ArtifactId:
    """Show a table: a dict of lists (columns), a list of dicts (rows by column) or a list of lists (rows).

    Cells may be anything; what JSON has no word for is shown as its text.
    """
    return _create(TABLE, key, description, messages.dumps(tables.table_of(table)))


def create_progress_artifact(
    progress: float, key: Optional[str] = None, description: Optional[str] = None
) -> ArtifactId:
    """Show a bar of its own; ``progress`` is 0–100. ``update_progress_artifact`` moves it."""
    return _create(PROGRESS, key, description, repr(_percent(progress, "create_progress_artifact()")))


def update_progress_artifact(artifact_id: str, progress: float, description: Optional[str] = None) -> ArtifactId:
    """Move the bar that ``create_progress_artifact`` made in this run. At most 20 facts a second; the last counts."""
    if not _is_id(artifact_id):
        raise ValueError(
            "update_progress_artifact() takes the id that create_progress_artifact() returned, not %s"
            % preview(artifact_id)
        )
    percent = repr(_percent(progress, "update_progress_artifact()"))
    identity, run = ArtifactId(artifact_id), context.current_run()
    if run is not None:
        _artifact_updates(run.root).update(_fact(run, identity, PROGRESS, "", description, percent))
    return identity


def create_image_artifact(image_url: str, key: Optional[str] = None, description: Optional[str] = None) -> ArtifactId:
    """Show a picture by its address. One in a ``data:`` URL (PNG, JPEG, GIF, WebP, SVG) is kept with the run."""
    url = _text(image_url, "create_image_artifact()", "an image_url").strip()
    if url[:5].lower() != "data:":
        return _create(IMAGE, key, description, tables.clean(url))
    try:
        content = artifact_content.decode_data_url(url)
    except ValueError as wrong:
        raise ValueError("create_image_artifact() cannot read the data: URL: %s" % wrong) from None
    if artifact_content.picture_type(content) is None:
        raise ValueError("create_image_artifact() takes a data: URL of a PNG, JPEG, GIF, WebP or SVG, this is none")
    return _create_picture(IMAGE, key, description, content)


def create_plot_artifact(plot: Any, key: Optional[str] = None, description: Optional[str] = None) -> ArtifactId:
    """Show a plot: SVG as text or bytes, PNG as bytes, or what has ``savefig(file, format=…)`` as matplotlib's."""
    if callable(getattr(plot, "savefig", None)):
        content = _saved(plot)
    elif isinstance(plot, (bytes, bytearray, memoryview)):
        content = bytes(plot)
    elif isinstance(plot, str):
        content = plot.encode("utf-8", "backslashreplace")
    else:
        content = b""
    if artifact_content.picture_type(content) is None:
        raise ValueError(
            "create_plot_artifact() takes SVG text, SVG or PNG bytes, or a figure with savefig(), not %s"
            % (preview(plot) if isinstance(plot, (str, bytes)) else type(plot).__name__)
        )
    return _create_picture(PLOT, key, description, content)


def _later(create: Callable[P, ArtifactId]) -> Callable[P, Coroutine[Any, Any, ArtifactId]]:
    @wraps(create)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> ArtifactId:
        return create(*args, **kwargs)

    twin.__name__ = twin.__qualname__ = "a" + create.__name__
    return twin


acreate_link_artifact = _later(create_link_artifact)
acreate_markdown_artifact = _later(create_markdown_artifact)
acreate_table_artifact = _later(create_table_artifact)
acreate_progress_artifact = _later(create_progress_artifact)
aupdate_progress_artifact = _later(update_progress_artifact)
acreate_image_artifact = _later(create_image_artifact)
acreate_plot_artifact = _later(create_plot_artifact)


# ------------------------------------------------------------------------------------------------ from here to facts


class ArtifactUpdates:
    """The artifacts of one run that this process has made: how many, how much, and bars that are moved too often."""

    def __init__(self, run: Run) -> None:
        self._run, self._lock = run, threading.Lock()
        self._count = self._bytes = 0
        self._bars: Dict[str, Throttle] = {}

    def add(self, fact: ArtifactWritten, size: int) -> None:
        """Tell a new artifact of ``size`` bytes. Raises ``ValueError`` when the run has as much as it may have."""
        with self._lock:
            if self._count >= artifact_content.MAX_RUN_COUNT or self._bytes + size > artifact_content.MAX_RUN_BYTES:
                raise ValueError(
                    "this run has %d artifacts of %.1f MiB; it may have %d of %d MiB together"
                    % (
                        self._count,
                        self._bytes / 2**20,
                        artifact_content.MAX_RUN_COUNT,
                        artifact_content.MAX_RUN_BYTES >> 20,
                    )
                )
            self._count, self._bytes = self._count + 1, self._bytes + size
        self._run.tell(fact)

    def update(self, fact: ArtifactWritten) -> None:
        """Tell where a bar stands, soon."""
        with self._lock:
            bar = self._bars.setdefault(fact.artifact, Throttle(self._run, self._run.tell))
        bar(fact)

    def settle(self) -> None:
        """Tell at once where the bars stand."""
        for bar in list(self._bars.values()):
            bar.settle()


_making = threading.Lock()


def _artifact_updates(run: Run) -> ArtifactUpdates:
    with _making:
        if run.artifact_updates is None:
            run.artifact_updates = ArtifactUpdates(run)
        artifact_updates: ArtifactUpdates = run.artifact_updates
        return artifact_updates


def _create(kind: str, key: Optional[str], description: Optional[str], data: str) -> ArtifactId:
    return _added(kind, key, description, len(data.encode("utf-8", "backslashreplace")), data=data)


def _create_picture(kind: str, key: Optional[str], description: Optional[str], content: bytes) -> ArtifactId:
    """SVG travels as text, so that secrets are found in it."""
    if artifact_content.picture_type(content) == artifact_content.SVG:
        return _create(kind, key, description, tables.clean(content.decode("utf-8")))
    return _added(kind, key, description, len(content), coded=base64.b64encode(content).decode("ascii"))


def _added(
    kind: str, key: Optional[str], description: Optional[str], size: int, data: str = "", coded: str = ""
) -> ArtifactId:
    if key is not None and not (isinstance(key, str) and artifact_content.is_key(key)):
        raise ValueError(
            "the key of an artifact must only contain lowercase letters, numbers and dashes, at most %d, not %s"
            % (artifact_content.MAX_KEY, preview(key))
        )
    if size > artifact_content.MAX_BYTES:
        raise ValueError(
            "the %s artifact takes %.1f MiB; an artifact may take %d MiB"
            % (kind, size / 2**20, artifact_content.MAX_BYTES >> 20)
        )
    made, run = ArtifactId(new_id()), context.current_run()
    if run is not None:
        shown = of_this_process.without(key) if key else ""
        _artifact_updates(run.root).add(_fact(run, made, kind, shown, description, data, coded), size)
    return made


def _fact(
    run: Run, identity: str, kind: str, key: str, description: Optional[str], data: str = "", coded: str = ""
) -> ArtifactWritten:
    task = context.current_task()
    number = task.number if task is not None and task.run.root is run.root else None
    words = (
        "" if description is None else tables.short(tables.to_text(description), artifact_content.MAX_DESCRIPTION_BYTES)
    )
    return ArtifactWritten(run.root.clock(), str(identity), kind, key, words, data, coded, number)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 36 and set(value) <= set("0123456789abcdefABCDEF-")


# ---------------------------------------------------------------------------------------------- values made harmless


def _text(value: Any, function: str, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError("%s takes %s that is a string, not %s" % (function, what, type(value).__name__))
    return value


def _percent(value: Any, function: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 <= number <= 100.0:  # also refuses NaN
        raise ValueError("%s takes a progress between 0 and 100, not %s" % (function, preview(value)))
    return number


def _saved(figure: Any) -> bytes:
    """A figure as SVG; as PNG where that would be too large, as of many thousand points."""
    for form in ("svg", "png"):
        file = io.BytesIO()
        figure.savefig(file, format=form)
        if len(file.getvalue()) <= artifact_content.MAX_BYTES:
            break
    return file.getvalue()
