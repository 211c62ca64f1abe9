"""The pages of the Weekly Executive Report."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from example_home import part_of
from example_kpis import Kpis, Trends
from example_pdf import (
    BOLD,
    FAINT,
    INK,
    INNER,
    MAGENTA,
    MARGIN,
    PALE,
    SOFT,
    TEAL,
    WIDTH,
    Sheet,
    blend,
    round_up,
)

Report = Callable[[float, str], Any]
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def money(cents: float) -> str:
    """Dollars without cents from 1,000 on."""
    dollars = cents / 100
    return f"${dollars:,.0f}" if abs(dollars) >= 1000 else f"${dollars:,.2f}"


def short_money(dollars: float) -> str:
    """An axis label."""
    return f"${dollars / 1000:g}k" if dollars >= 1000 else f"${dollars:g}"


def day_text(day: date) -> str:
    """28 June 1998; never dependent on the machine's locale."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def week_text(monday: date) -> str:
    """22 June – 28 June 1998."""
    last = monday + timedelta(days=6)
    first = day_text(monday) if monday.year != last.year else day_text(monday)[:-5]
    return f"{first} – {day_text(last)}"


def change(now: float, before: float) -> float | None:
    """Percent against the week before; None without one."""
    return 100 * (now - before) / before if before else None


def headline(kpis: Kpis) -> str:
    """The report in one sentence."""
    week, percent = kpis.week, change(kpis.week.cents, kpis.before.cents)
    moved = "" if percent is None else f", {'up' if percent >= 0 else 'down'} {abs(percent):.1f} % on the week before"
    return (
        f"{money(week.cents)} from {week.purchases:,} purchases by {week.customers:,} customers"
        f" in the week of {week_text(week.start)}{moved}."
    )


def render(path: Path, kpis: Kpis, trends: Trends, *, created: str, compress: bool, report: Report) -> int:
    """Writes the PDF; returns the number of pages. A reader of `path` sees all of it or none."""
    part = part_of(path)
    sheet = Sheet(part, f"Weekly Executive Report, {week_text(kpis.week.start)}", compress)
    parts: list[Callable[[], None]] = [
        lambda: _head(sheet, kpis, created),
        lambda: _weeks(sheet, trends),
        lambda: _days(sheet, kpis, trends),
        lambda: _top(sheet, trends),
        lambda: _foot(sheet, kpis),
        sheet.next_page,
        lambda: _cohorts(sheet, trends),
        lambda: _model(sheet, trends),
        lambda: _trials(sheet, trends),
        lambda: _health(sheet, trends),
        lambda: _quality(sheet, kpis),
        lambda: _foot(sheet, kpis),
        sheet.save,
    ]
    for number, draw in enumerate(parts, start=1):
        draw()
        report(number / len(parts), f"page {sheet.pages}")
    os.replace(part, path)
    return sheet.pages


def _head(sheet: Sheet, kpis: Kpis, created: str) -> None:
    week, before = kpis.week, kpis.before
    sheet.band("Weekly Executive Report", f"CD sales, week of {week_text(week.start)}   ·   made {created}")
    sheet.tiles(
        [
            ("Revenue", money(week.cents), change(week.cents, before.cents)),
            ("Purchases", f"{week.purchases:,}", change(week.purchases, before.purchases)),
            ("Buyers", f"{week.customers:,}", change(week.customers, before.customers)),
            ("CDs sold", f"{week.cds:,}", change(week.cds, before.cds)),
            ("Average basket", money(week.basket_cents), change(week.basket_cents, before.basket_cents)),
        ]
    )


def _weeks(sheet: Sheet, trends: Trends) -> None:
    weeks = trends.weeks
    sheet.heading("Revenue by week", f"{len(weeks)} weeks up to {day_text(weeks[-1].start + timedelta(days=6))}")
    height = 128.0
    sheet.y -= height + 14
    box = (MARGIN + 30, sheet.y, INNER - 30, height)
    values = [week.cents / 100 for week in weeks]
    top = round_up(max(values) or 1)
    sheet.axis(box, top, short_money)
    middles = sheet.bars(box, values, top, [PALE] * (len(weeks) - 1) + [TEAL])
    average = [sum(values[max(0, n - 3) : n + 1]) / len(values[max(0, n - 3) : n + 1]) for n in range(len(values))]
    sheet.shape(
        [(x, sheet.y + height * v / top) for x, v in zip(middles, average)] or [(0, 0)],
        stroke=MAGENTA,
        width=1.1,
        closed=False,
    )
    _month_labels(sheet, [week.start for week in weeks], middles)
    sheet.text(WIDTH - MARGIN, sheet.y + height + 5, "4-week average", 7.5, MAGENTA, align="right")
    sheet.y -= 12


def _month_labels(sheet: Sheet, days: list[date], middles: list[float]) -> None:
    written = -100.0
    for number, (day, x) in enumerate(zip(days, middles)):
        new_month = number == 0 or days[number - 1].month != day.month
        if new_month and x - written > 34:
            sheet.text(x, sheet.y - 10, f"{MONTHS[day.month - 1][:3]} {day.year % 100:02d}", 7, FAINT, align="centre")
            written = x


def _days(sheet: Sheet, kpis: Kpis, trends: Trends) -> None:
    half = INNER * 0.60
    sheet.heading("Revenue by day", f"last {len(trends.days)} days", width=half)
    sheet.y += 26
    right = MARGIN + half + 24
    sheet.heading(f"Since {day_text(date.fromisoformat(kpis.first_day))}", x=right)
    height = 92.0
    sheet.y -= height + 14
    box = (MARGIN + 30, sheet.y, half - 30, height)
    values = [cents / 100 for _, cents in trends.days]
    top = round_up(max(values) or 1)
    sheet.axis(box, top, short_money)
    step = box[2] / max(1, len(values) - 1)
    points = [(box[0] + n * step, sheet.y + height * value / top) for n, value in enumerate(values)]
    sheet.shape([(box[0], sheet.y), *points, (points[-1][0], sheet.y)], fill="#d9f3f8")
    sheet.shape(points, stroke=TEAL, width=1.2, closed=False)
    for n in range(0, len(values), 14):
        day = trends.days[n][0]
        sheet.text(points[n][0], sheet.y - 10, f"{day.day} {MONTHS[day.month - 1][:3]}", 7, FAINT, align="centre")
    facts = [
        ("Revenue", money(kpis.cents)),
        ("Purchases", f"{kpis.purchases:,}"),
        ("Customers", f"{kpis.customers:,}"),
        ("CDs", f"{kpis.cds:,}"),
        ("Bought more than once", f"{100 * kpis.repeat_share:.1f} %"),
    ]
    for number, (label, value) in enumerate(facts):
        y = sheet.y + height - 8 - number * 20
        sheet.text(right, y, label, 8.5, SOFT)
        sheet.text(WIDTH - MARGIN, y, value, 11, INK, BOLD, "right")
        sheet.line(right, y - 6, WIDTH - MARGIN, y - 6)
    sheet.y -= 12


def _top(sheet: Sheet, trends: Trends) -> None:
    sheet.heading("Top customers", "by revenue since the beginning")
    rows = [
        (
            str(n),
            f"{c.customer_id:05d}",
            c.first_day,
            f"{c.purchases:,}",
            f"{c.cds:,}",
            money(c.cents),
            money(c.week_cents) if c.week_cents else "–",
        )
        for n, c in enumerate(trends.top, start=1)
    ]
    sheet.table(
        [
            ("#", 0.01, False),
            ("CUSTOMER", 0.06, False),
            ("FIRST BOUGHT", 0.24, False),
            ("PURCHASES", 0.53, True),
            ("CDS", 0.66, True),
            ("REVENUE", 0.83, True),
            ("THIS WEEK", 0.99, True),
        ],
        rows,
        MARGIN,
        INNER,
    )


def _cohorts(sheet: Sheet, trends: Trends) -> None:
    sheet.heading("Who comes back", "share of a month's first-time buyers who bought again, by quarter", gap=14)
    left, height = MARGIN + 130, 26.0
    width = (INNER - 130) / max(1, len(trends.quarters))
    sheet.y -= 20
    for number, name in enumerate(trends.quarters):
        sheet.text(left + (number + 0.5) * width, sheet.y, name, 7.5, FAINT, BOLD, "centre")
    peak = max([0.01] + [share for cohort in trends.cohorts for share in cohort.active])
    sheet.y -= 6
    for cohort in trends.cohorts:
        sheet.y -= height
        first = date.fromisoformat(cohort.month + "-01")
        sheet.text(MARGIN, sheet.y + 14, " ".join(day_text(first).split()[1:]), 9, INK, BOLD)
        sheet.text(MARGIN, sheet.y + 4, f"{cohort.customers:,} customers", 7.5, FAINT)
        for number, share in enumerate(cohort.active):
            x = left + number * width
            sheet.box(x + 1, sheet.y + 1, width - 2, height - 2, blend(share / peak))
            sheet.text(x + width / 2, sheet.y + 9, f"{100 * share:.1f} %", 9, INK, align="centre")
    sheet.y -= 10


def _model(sheet: Sheet, trends: Trends) -> None:
    model = trends.model
    note = f"version {model['version']}, trained {model['trained_at'][:10]}" if model else ""
    sheet.heading("Churn model in use", note)
    if model is None:
        sheet.y -= 20
        sheet.text(MARGIN, sheet.y, "No model yet: Churn Model Retraining has not kept one.", 9, SOFT)
        return
    _model_facts(sheet, model)
    _decile_chart(sheet, model)


def _model_facts(sheet: Sheet, model: Any) -> None:
    facts = [
        ("AUC, held-out", f"{model['auc']:.3f}"),
        ("Brier score", f"{model['brier']:.3f}"),
        ("Held-out customers", f"{model['held_out']:,}"),
        ("Trained on", f"{model['trained_on']:,}"),
        ("Kind", str(model["kind"])),
        ("Configuration", str(model["configuration"])),
    ]
    width = INNER / len(facts)
    sheet.y -= 36
    for number, (label, value) in enumerate(facts):
        sheet.text(MARGIN + number * width, sheet.y + 14, label, 7.5, FAINT)
        sheet.text(MARGIN + number * width, sheet.y, value, 11, MAGENTA if label == "Configuration" else INK, BOLD)


def _decile_chart(sheet: Sheet, model: Any) -> None:
    height = 130.0
    sheet.y -= height + 34
    sheet.text(
        MARGIN,
        sheet.y + height + 14,
        "Customers in ten groups, likeliest first: predicted and real share that bought again in the next 39 weeks",
        8.5,
        SOFT,
    )
    box = (MARGIN + 30, sheet.y, INNER - 30, height)
    sheet.axis(box, 1.0, lambda share: f"{100 * share:g} %")
    pairs = [share for pair in model["deciles"] for share in (*pair, 0.0)][:-1]
    middles = sheet.bars(box, pairs, 1.0, [PALE, TEAL, "#ffffff"] * len(model["deciles"]))
    for number in range(len(model["deciles"])):
        middle = (middles[3 * number] + middles[3 * number + 1]) / 2
        sheet.text(middle, sheet.y - 11, str(number + 1), 7.5, FAINT, align="centre")
    sheet.box(WIDTH - MARGIN - 118, sheet.y + height - 14, 8, 8, PALE)
    sheet.text(WIDTH - MARGIN - 106, sheet.y + height - 13, "predicted", 8, SOFT)
    sheet.box(WIDTH - MARGIN - 52, sheet.y + height - 14, 8, 8, TEAL)
    sheet.text(WIDTH - MARGIN - 40, sheet.y + height - 13, "real", 8, SOFT)
    sheet.y -= 14


def _trials(sheet: Sheet, trends: Trends) -> None:
    if not trends.trials:
        return
    sheet.table(
        [
            ("MODEL", 0.01, False),
            ("TRAINED", 0.12, False),
            ("CONFIGURATION", 0.38, False),
            ("KIND", 0.60, False),
            ("AUC", 0.82, True),
            ("OUTCOME", 0.99, True),
        ],
        [
            (
                str(t.version),
                t.trained_at[:16].replace("T", " "),
                t.configuration,
                t.kind,
                f"{t.auc:.4f}",
                "in use" if t.in_use else "replaced" if t.kept else "not better",
            )
            for t in trends.trials
        ],
        MARGIN,
        INNER,
    )


def _health(sheet: Sheet, trends: Trends) -> None:
    if not trends.health:
        return
    sheet.heading("Infrastructure", "latest health check, and how often it passed in 30 days", gap=34)
    sheet.table(
        [
            ("CHECK", 0.01, False),
            ("MEASURED", 0.50, True),
            ("LIMIT", 0.68, True),
            ("OUTCOME", 0.83, True),
            ("PASSED", 0.99, True),
        ],
        [
            (
                m.name if len(m.name) < 36 else m.name[:34] + "…",
                "–" if m.value is None else f"{m.value:,.4g} {m.unit}",
                f"{m.limit:,g} {m.unit}",
                "passed" if m.passed else "failed",
                f"{100 * m.passed_share:.0f} %",
            )
            for m in trends.health
        ],
        MARGIN,
        INNER,
    )


def _quality(sheet: Sheet, kpis: Kpis) -> None:
    sheet.heading("Where the numbers come from", gap=34)
    sheet.y -= 18
    bad = 100 * kpis.rejected / kpis.lines if kpis.lines else 0.0
    for text in (
        f"{kpis.source}, loaded {kpis.loaded_at[:16].replace('T', ' ')} UTC: {kpis.lines:,} lines,"
        f" {kpis.rejected:,} rejected ({bad:.2f} %), {kpis.purchases:,} purchases kept.",
        f"{kpis.customers:,} customers and {kpis.cds:,} CDs between {day_text(date.fromisoformat(kpis.first_day))}"
        f" and {day_text(date.fromisoformat(kpis.last_day))}.",
    ):
        sheet.text(MARGIN, sheet.y, text, 8.5, SOFT)
        sheet.y -= 14


def _foot(sheet: Sheet, kpis: Kpis) -> None:
    sheet.foot(f"Weekly Executive Report · {week_text(kpis.week.start)}")
