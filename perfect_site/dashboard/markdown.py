"""Markdown of people as HTML that is safe on our pages: no HTML of theirs, no picture, few addresses."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from django.utils.safestring import SafeString, mark_safe

from runs.rules.artifacts import opens

LEAVING = {"rel": "noopener noreferrer", "target": "_blank"}
HEADINGS_BELOW = 3  # a page's own headings are h1 to h3


@lru_cache(maxsize=64)  # a live page is drawn again and again
def rendered(text: str) -> SafeString:
    """CommonMark with tables and ~~strikethrough~~; what is not safe stands there as text."""
    return mark_safe(_parser().render(text))


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt  # heavy: 50 ms that only a page with Markdown needs

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    setattr(parser, "validateLink", opens)  # noqa: B010 - a method that is meant to be replaced, but not typed so
    parser.core.ruler.push("fit_our_pages", _fit_our_pages)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _fit_our_pages(state: Any) -> None:
    for token in state.tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{min(6, int(token.tag[1]) + HEADINGS_BELOW)}"
        if "style" in token.attrs:  # how a column is aligned; our policy allows no style=
            token.attrs = {"class": str(token.attrs["style"]).replace("text-align:", "at-")}
        if token.children:
            token.children = _leaving(state, token.children)


def _leaving(state: Any, tokens: list[Any]) -> list[Any]:
    """Links open beside the page; a picture is a link to it, or in a link its words."""
    kept, depth = [], 0
    for token in tokens:
        depth += token.nesting if token.type.startswith("link_") else 0
        if token.type == "link_open":
            token.attrs.update(LEAVING)
        kept += _as_link(state, token, depth) if token.type == "image" else [token]
    return kept


def _as_link(state: Any, image: Any, depth: int) -> list[Any]:
    from markdown_it.token import Token  # heavy: loaded with the parser

    address = image.attrs["src"]
    words = Token("text", "", 0, content=image.content or address)
    if depth:
        return [words]
    return [Token("link_open", "a", 1, attrs={"href": address, **LEAVING}), words, Token("link_close", "a", -1)]
