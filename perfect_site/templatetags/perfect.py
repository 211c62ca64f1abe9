"""How templates say things: states, durations, moments, percent. Moments are written so that any browser can localise
them: fragments are shared by everybody who watches, so the server writes UTC and ``moments.js`` the reader's zone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from runs.rules.geometry import Bar
from runs.rules.states import SHOWN, seen

register = template.Library()
Seconds = float | int | timedelta | None


def seconds_of(value: Seconds) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


@register.filter
def dur(value: Seconds) -> str:
    """Seconds or a timedelta as people read it: ``14 ms``, ``1.9 s``, ``2:05``, ``1:02:03``, ``3 d 4 h``."""
    seconds = seconds_of(value)
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 86400} d {whole // 3600 % 24} h"


def short(seconds: float) -> str:
    """Like ``dur`` but for time left: whole seconds, ``0:04``."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02}" if whole < 3600 else dur(whole)


@register.filter
def eta(value: tuple[float, float] | None) -> str:
    """Seconds left, low and high, as ``1:12–1:30``, or one number where the ends look alike."""
    if not value:
        return ""
    low, high = short(value[0]), short(value[1])
    return high if low == high else f"{low}–{high}"


@register.filter
def number(value: float | None) -> str:
    """Without a needless ``.0``, and never more than three digits after the point."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


@register.simple_tag
def cell(value: str | float | bool | None) -> SafeString:
    """A cell of somebody's table: numbers stand to the right."""
    if isinstance(value, bool) or value is None:
        return format_html("<td>{}</td>", "" if value is None else str(value).lower())
    if isinstance(value, str):
        return format_html("<td>{}</td>", value)
    return format_html('<td class="n">{}</td>', f"{value:.10g}" if isinstance(value, float) else value)


@register.filter
def x(value: float) -> str:
    """A coordinate for SVG, in percent."""
    return f"{value:.2f}%"


@register.filter
def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@register.filter
def pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


@register.filter
def glyph(state: str) -> str:
    return SHOWN.get(str(state), ("?", ""))[0]


@register.filter
def word(state: str) -> str:
    return SHOWN.get(str(state), ("", str(state)))[1]


@register.simple_tag(name="state")
def state_tag(state: str) -> SafeString:
    """Glyph, word and colour, always all three."""
    shown = seen(state)
    return format_html(
        '<span class="state {}"><span aria-hidden="true">{}</span>{}</span>', shown, glyph(shown), word(shown)
    )


FALLBACKS = {
    "clock": "%H:%M:%S",
    "ago": "%Y-%m-%d %H:%M",
    "age": "%d %b %H:%M",
    "until": "%Y-%m-%d %H:%M",
    "stamp": "%Y-%m-%d %H:%M:%S",
    "day": "%a %H:%M",
    "since": "%H:%M:%S",
}


@register.simple_tag
def at(moment: datetime | None, form: str = "stamp") -> SafeString | str:
    """A moment as ``clock`` (12:03:04), ``stamp``, ``ago`` (4 min ago), ``age`` (4 min), ``until`` (in 4 min),
    ``day`` (Mon 09:00) or ``since`` (a stopwatch). Without JavaScript it reads in UTC."""
    if moment is None:
        return ""
    utc = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-f="{}" title="{} UTC">{}</time>',
        utc.isoformat(timespec="milliseconds"),
        form,
        utc.strftime("%Y-%m-%d %H:%M:%S"),
        utc.strftime(FALLBACKS[form]) + ("" if form in {"clock", "day"} else " UTC"),
    )


@register.inclusion_tag("runs/_wbar.html")
def wbar(shown: Any, *, live: bool = True) -> dict[str, Any]:
    """The segmented weighted bar of a ``RunPresenter``."""
    return {"shown": shown, "live": live and shown.run.state == "RUNNING"}


@register.simple_tag
def bars(shown: Any) -> SafeString:
    """The bars of a flow's last runs (``FlowPresenter``). Written here and not in a template: a page has hundreds."""
    ended = len(shown.ended)
    label = f"{shown.good} of the last {ended} runs completed" if ended else "no run has ended yet"
    drawn = "".join(map(_bar, shown.bars))
    base = '<rect class="base" x="0" y="100%" width="100%" height="1" transform="translate(0 -1)"/>'
    return mark_safe(f'<svg class="bars" role="group" aria-label="{label}">{drawn}{base}</svg>')


def _bar(bar: Bar) -> str:
    place = f'class="{escape(bar.state)}" x="{bar.x:.2f}%" width="{bar.width:.2f}%"'
    mark = f'<rect {place} y="0" height="3"/>' if bar.mark else ""
    return (
        f'<a href="{escape(bar.url)}" tabindex="-1"><rect {place} y="{bar.y:.2f}%" height="{bar.height:.2f}%">'
        f"<title>{escape(bar.title)}</title></rect>{mark}</a>"
    )
