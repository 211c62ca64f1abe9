"""Artifacts as code makes them: what is refused in a sentence, what is told, and that nothing is told outside a run."""

from __future__ import annotations

import asyncio
import base64
import datetime
import decimal
import json
from typing import Any, Callable, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect_client import Secret, artifacts, flow, task
from perfect_client.artifacts import (
    acreate_markdown_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_plot_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from perfect_client.engine.task_runners import ProcessPoolTaskRunner
from perfect_client.execution import executor
from perfect_client.schema.secrets import fact_without_secrets
from perfect_client.wire import artifact_content, messages
from perfect_client.wire.messages import ArtifactWritten

from tests.sdk.story import execute_flow, python

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SVG = '<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>'
MIB = 1 << 20


def told(function: Callable[[], Any]) -> List[ArtifactWritten]:
    """What a flow that calls ``function`` tells of artifacts."""

    @flow
    def shows() -> None:
        function()

    story = execute_flow(shows)
    assert story.outcome == "COMPLETED", story.ended
    return story.of(ArtifactWritten)


def table_of(table: Any) -> Any:
    (fact,) = told(lambda: create_table_artifact(table))
    return json.loads(fact.data)


# -------------------------------------------------------------------------------------------------------- what is told


def test_each_kind_is_told_with_its_key_and_its_words() -> None:
    facts = told(
        lambda: [
            create_link_artifact("https://example.org/x", "the report", key="a-1", description="where"),
            create_markdown_artifact("# Done", key="b"),
            create_table_artifact([[1]], key="c"),
            create_progress_artifact(12.5, key="d"),
            create_image_artifact("https://example.org/x.png", key="e"),
            create_plot_artifact(SVG, key="f"),
        ]
    )

    assert [(f.kind, f.key) for f in facts] == [
        ("link", "a-1"),
        ("markdown", "b"),
        ("table", "c"),
        ("progress", "d"),
        ("image", "e"),
        ("plot", "f"),
    ]
    assert json.loads(facts[0].data) == {"link": "https://example.org/x", "text": "the report"}
    assert (facts[0].description, facts[1].data, facts[3].data, facts[5].data) == ("where", "# Done", "12.5", SVG)
    assert len({f.artifact for f in facts}) == 6


def test_what_a_task_shows_is_told_of_the_task() -> None:
    @task
    def shows() -> str:
        return create_markdown_artifact("x")

    @flow
    def around() -> Any:
        return create_markdown_artifact("y"), shows()

    story = execute_flow(around)

    assert [fact.task for fact in story.of(ArtifactWritten)] == [None, 1]


def test_threads_loops_and_processes_show_alike() -> None:
    story = execute_flow(everywhere)

    shown = {fact.data: fact.task for fact in story.of(ArtifactWritten)}
    names = {fact.task: fact.name for fact in story.started}
    assert {data: names.get(number or 0) for data, number in shown.items()} == {
        "thread": "in_thread",
        "loop": "in_loop",
        "process": "in_process",
        "75.0": "in_process",
    }


@task
def in_thread() -> None:
    create_markdown_artifact("thread")


@task
async def in_loop() -> None:
    await acreate_markdown_artifact("loop")


@task
def in_process() -> str:
    create_markdown_artifact("process")
    return create_progress_artifact(75)


@flow
def in_threads() -> None:
    in_thread.submit().result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def everywhere() -> None:
    in_process.submit().result()
    asyncio.run(in_loop())
    in_threads()


def test_the_id_may_be_awaited_as_prefects_users_do() -> None:
    @flow
    async def shows() -> bool:
        first = await create_markdown_artifact("one")
        second = await artifacts.acreate_table_artifact(table=[[2]], key="k")
        return isinstance(first, str) and len(second) == 36

    story = execute_flow(shows)

    assert story.ended.result == "True"
    assert [fact.kind for fact in story.of(ArtifactWritten)] == ["markdown", "table"]
    assert artifacts.acreate_plot_artifact.__name__ == "acreate_plot_artifact"


def test_outside_a_run_and_in_a_direct_call_the_same_calls_give_an_id() -> None:
    @flow
    def shows() -> str:
        update_progress_artifact(create_progress_artifact(1), 2)
        return create_markdown_artifact("x")

    assert len(create_markdown_artifact("x")) == len(shows()) == 36
    assert len(asyncio.run(acreate_markdown_artifact("x"))) == 36
    assert update_progress_artifact(create_progress_artifact(0), 100)


def test_nothing_is_loaded_for_artifacts_before_they_are_asked_for() -> None:
    code = "import sys, perfect_client; print('perfect_client.artifacts' in sys.modules)"
    assert python("-c", code).stdout.strip() == b"False"
    assert python("-c", "from perfect_client import create_plot_artifact as f; print(f.__module__)").stdout.strip() == (
        b"perfect_client.artifacts"
    )


# ------------------------------------------------------------------------------------------------------------ progress


def test_a_bar_is_moved_a_few_times_a_second_and_the_last_value_counts() -> None:
    def moves() -> None:
        made = create_progress_artifact(0, description="rows")
        for n in range(2_000):
            update_progress_artifact(made, n / 20)

    facts = told(moves)

    assert len({fact.artifact for fact in facts}) == 1
    assert 2 <= len(facts) < 200
    assert facts[-1].data == repr(1999 / 20)
    assert [fact.description for fact in facts[:2]] == ["rows", ""]


def test_a_bar_is_moved_from_another_process() -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def shows() -> None:
        moves.submit(create_progress_artifact(1)).result()

    facts = execute_flow(shows).of(ArtifactWritten)

    assert (facts[0].data, facts[-1].data) == ("1.0", "50.0")
    assert len(facts) < 100
    assert len({fact.artifact for fact in facts}) == 1


@task
def moves(bar: str) -> None:
    for n in range(1, 1_001):
        update_progress_artifact(bar, n / 20)


@pytest.mark.parametrize("value", [-1, 101, float("nan"), float("inf"), "much", None, 10**400])
def test_a_progress_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="create_progress_artifact.. takes a progress between 0 and 100, not"):
        create_progress_artifact(value)


@pytest.mark.parametrize("value", ["x", None, 7, "z" * 36])
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="takes the id that create_progress_artifact"):
        update_progress_artifact(value, 50)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("key", ["Report", "a b", "ä", "a_b", "", "x" * 201, "a\n", 7])
def test_a_key_is_lowercase_letters_numbers_and_dashes(key: Any) -> None:
    with pytest.raises(ValueError, match="must only contain lowercase letters, numbers and dashes"):
        create_markdown_artifact("x", key=key)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: create_markdown_artifact(None),
            "create_markdown_artifact.. takes a markdown that is a string, not NoneType",
        ),  # type: ignore[arg-type]
        (lambda: create_link_artifact(7), "takes a link that is a string, not int"),  # type: ignore[arg-type]
        (lambda: create_image_artifact(b"x"), "takes an image_url that is a string, not bytes"),  # type: ignore[arg-type]
        (lambda: create_table_artifact(7), "takes a dict of lists, a list of dicts or a list of lists, not int"),
        (lambda: create_table_artifact({"a": 7}), "the column 'a' of create_table_artifact.. must be a list, not int"),
        (lambda: create_table_artifact(["ab"]), "row 1 of create_table_artifact.. must be a list, not str"),
        (lambda: create_table_artifact([{}, 7]), "row 2 of create_table_artifact.. must be a dict as the first"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_a_sentence(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        call()


@pytest.mark.parametrize(
    "plot", ["<html></html>", b"GIF", b"\xff\xfe", 7, None, "<svgx>", '<!DOCTYPE svg [<!ENTITY a "b">]><svg/>']
)
def test_a_plot_is_svg_or_png(plot: Any) -> None:
    with pytest.raises(ValueError, match="create_plot_artifact.. takes SVG text, SVG or PNG bytes, or a figure"):
        create_plot_artifact(plot)


@pytest.mark.parametrize("url", ["data:image/png;base64,????", "data:nothing", "data:text/html,<script>", "data:,"])
def test_a_data_url_that_is_no_picture_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="create_image_artifact.. "):
        create_image_artifact(url)


def test_what_is_too_large_is_refused_before_it_is_told() -> None:
    for call in (
        lambda: create_markdown_artifact("x" * (2 * MIB + 1)),
        lambda: create_plot_artifact(PNG + b"x" * 2 * MIB),
        lambda: create_table_artifact([["x" * 4000]] * 600),
        lambda: create_table_artifact([[1]] * 2_000_000),
        lambda: create_table_artifact([[1] * 1001]),
    ):
        with pytest.raises(ValueError, match="may take 2 MiB|do not fit into 2 MiB|it may have 1000"):
            call()


def test_a_run_has_only_so_many_artifacts_and_so_much_of_them() -> None:
    @flow
    def many() -> None:
        for _ in range(artifact_content.MAX_RUN_COUNT + 1):
            create_markdown_artifact("x")

    @flow
    def large() -> None:
        for _ in range(33):
            create_markdown_artifact("x" * 2 * MIB)

    counts = []
    for shows in (many, large):
        facts: List[Any] = []
        executor.execute(shows, messages.OfferRun(7, "r", shows.name), facts.append)
        counts.append(sum(isinstance(fact, ArtifactWritten) for fact in facts))
        assert facts[-1].error.endswith("it may have 1000 of 64 MiB together")

    assert counts == [1000, 32]


# -------------------------------------------------------------------------------------------------------------- tables


def test_a_table_is_given_by_columns_by_records_or_by_rows() -> None:
    assert table_of({"a": [1, 2], "b": ["x"]}) == {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}
    assert table_of([{"a": 1}, {"b": 2, "a": 3}]) == {"columns": ["a", "b"], "rows": [[1, None], [3, 2]]}
    assert table_of([[1, "x"], (2,)]) == {"columns": None, "rows": [[1, "x"], [2]]}
    assert table_of([]) == {"columns": None, "rows": []}
    assert table_of({1: [1], "1": [2]}) == {"columns": ["1", "1"], "rows": [[1, 2]]}


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Whole:
    def __index__(self) -> int:
        return 7


def test_a_cell_may_be_any_object() -> None:
    day = datetime.date(2026, 3, 1)
    cells = [
        float("nan"),
        float("inf"),
        2**60,
        10**5000,
        day,
        decimal.Decimal("1.50"),
        [1, 2],
        Hostile(),
        Whole(),
        "\x00\x07\ud800",
        "x" * 9000,
        True,
        None,
        1.5,
    ]

    (row,) = table_of([cells])["rows"]

    assert row[:3] == [None, "inf", str(2**60)]
    assert row[3].startswith(("<int", "1000000000"))
    assert row[4:10] == ["2026-03-01", "1.50", "[1, 2]", "<Hostile>", 7, "\u2400\u2407\\ud800"]
    assert row[10].endswith("more)") and len(row[10]) < 4200
    assert row[11:] == [True, None, 1.5]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(anything, max_size=4), max_size=4))
def test_every_table_can_be_written_and_read_again(rows: Any) -> None:
    facts = told(lambda: create_table_artifact(rows))

    assert len(json.loads(messages.encode_fact(facts[0]))["data"]) > 0
    assert len(json.loads(facts[0].data)["rows"]) == len(rows)


# ------------------------------------------------------------------------------------------------------ pictures, parts


class Figure:
    """What matplotlib's can do."""

    def __init__(self, svg: bytes) -> None:
        self.svg, self.forms = svg, []  # type: ignore[var-annotated]

    def savefig(self, file: Any, format: str) -> None:
        self.forms.append(format)
        file.write(self.svg if format == "svg" else PNG)


def test_a_figure_is_saved_as_svg_or_if_that_is_too_large_as_png() -> None:
    small, large = Figure(SVG.encode()), Figure(b"<svg>" + b" " * 2 * MIB)

    first, second = told(lambda: [create_plot_artifact(small), create_plot_artifact(large)])

    assert (first.data, small.forms) == (SVG, ["svg"])
    assert (base64.b64decode(second.coded), large.forms) == (PNG, ["svg", "png"])


def test_a_data_url_is_kept_as_bytes() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()

    png, svg = told(lambda: [create_image_artifact(url), create_image_artifact("data:image/svg+xml," + "%3Csvg/%3E")])

    assert (png.kind, png.data, base64.b64decode(png.coded)) == ("image", "", PNG)
    assert (svg.kind, svg.data, svg.coded) == ("image", "<svg/>", "")


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=20), st.integers(1, 30_000), st.booleans())
def test_parts_put_together_are_the_whole(text: str, times: int, coded: bool) -> None:
    whole = artifact_content.legible(messages.clean_text(text, 1000)) * times
    fact = ArtifactWritten(1.0, "id", "plot", "key", "words", **{"coded" if coded else "data": whole})

    parts = messages.split_artifact(fact)

    assert "".join(part.data + part.coded for part in parts) == whole
    assert [(part.part, part.parts) for part in parts] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    assert all(len(messages.encode_fact(part)) < 200 * 1024 for part in parts)
    assert [part.description for part in parts] == ["words", *[""] * (len(parts) - 1)]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF....WEBPVP8", "image/webp"),
        (SVG.encode(), artifact_content.SVG),
        (b"\xef\xbb\xbf <svg>", artifact_content.SVG),
        (b"<!DOCTYPE svg PUBLIC 'x' 'y'><svg\n>", artifact_content.SVG),
        (b"<!--" * 9, None),
        (b"<svg", None),
        (b"", None),
        (b"<html><svg></svg>", None),
        (b"%PDF-1.7", None),
        (b"\x00<svg>", None),
    ],
)
def test_a_picture_is_told_by_its_bytes(content: bytes, kind: Any) -> None:
    assert artifact_content.picture_type(content) == kind


# ------------------------------------------------------------------------------------------------------------- secrets


def test_no_secret_is_shown() -> None:
    word = "hunter-two-and-more"
    Secret(word)
    quoted = 'pä"ss\\word'  # written otherwise in JSON
    Secret(quoted)
    Secret(987654321)
    Secret("a<b-and-c")

    facts = told(
        lambda: [
            create_markdown_artifact("the key is " + word, key=word, description=word),
            create_table_artifact(
                [[word, 987654321, 5, quoted, "x" * 4050 + word * 9]], description="x" * 4040 + word * 9
            ),
            create_link_artifact("https://example.org/", quoted),
            create_plot_artifact("<svg><text>a&lt;b-and-c</text></svg>"),
        ]
    )

    hidden = [fact_without_secrets(fact) for fact in facts]

    assert "hunter" not in "".join(fact.data + fact.key + fact.description for fact in hidden)
    assert json.loads(hidden[1].data)["rows"][0][:4] == ["***", "***", 5, "***"]
    assert json.loads(hidden[2].data)["text"] == "***"
    assert hidden[3].data == "<svg><text>***</text></svg>"
