"""Four flows that do real work on real data, chained through one SQLite warehouse.

    python examples/workflows/example_flows.py        serve them to the Perfect server on this machine

What they compute stands in the modules beside this one, which know nothing of Perfect. Here stand the flows and their
tasks: what runs in which order, what is reported, and what a person can change.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import example_churn as churn
import example_health as health
import example_kpis as kpis_of
import example_mail as mail
import example_report as pages
import example_sales as sales
from example_home import examples_home, folder, perfect_home, server_url, source_path, warehouse_path
from example_plot import line_chart
from example_warehouse import is_loaded
from perfect_client import CronSchedule, IntervalSchedule, flow, get_run_logger, progress, runtime, task
from perfect_client.artifacts import create_markdown_artifact, create_plot_artifact, create_table_artifact

SALES_FILE = "CDNOW_master.txt.gz"


def setting(name: str, default: Any) -> Any:
    """A value of the chosen configuration."""
    return runtime.flow_run.configuration.get(name, default)


def run_log() -> Any:
    """The run's logger at the level that the configuration asks for."""
    log = get_run_logger()
    log.setLevel(setting("log_level", "INFO"))
    return log


def run_id() -> str:
    """The run's id; a made-up one when a flow is called directly."""
    return str(runtime.flow_run.id or uuid.uuid4().hex)


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0)


# --- Daily Sales ETL ------------------------------------------------------------------------------------------------


@task(weight=4, estimated_time=200)
def extract_purchases(source: str, staging: str) -> int:
    """Unpacks the file line by line into the run's staging file."""
    swept = sales.sweep_staging(Path(staging).parent, now().timestamp())
    lines = sales.extract(source_path(source), Path(staging), progress)
    log = run_log()
    log.debug("staging file %s, %d old ones removed", staging, swept)
    log.info("%s holds %s lines", source, f"{lines:,}")
    return lines


@task(weight=8, estimated_time=400)
def clean_purchases(staging: str, shown: int, warn_bad_percent: float) -> sales.Cleaning:
    """Validates every line; bad ones are counted by reason and set aside, never fatal."""
    cleaning = sales.clean(Path(staging), shown, progress)
    log = run_log()
    for sample in cleaning.shown:
        log.info("rejected %s", sample)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in cleaning.reasons.items()) or "none"
    level = log.warning if cleaning.rejected_percent > warn_bad_percent else log.info
    level("%s of %s lines rejected: %s", f"{cleaning.rejected:,}", f"{cleaning.lines:,}", reasons)
    return cleaning


@task(weight=2, estimated_time=120)
def build_customer_table(staging: str) -> int:
    """One row a customer."""
    return sales.build_customers(Path(staging))


@task(weight=1, estimated_time=60)
def build_daily_sales(staging: str) -> int:
    """One row a day."""
    return sales.build_daily_sales(Path(staging))


@task(weight=2, estimated_time=120)
def publish_warehouse(source: str, staging: str, cleaning: sales.Cleaning, run: str) -> sales.Totals:
    """Checks the totals, then replaces the sales tables in one transaction."""
    return sales.publish(
        Path(staging),
        warehouse_path(),
        source=source_path(source),
        cleaning=cleaning,
        run=run,
        now=now().isoformat(),
        report=progress,
    )


@flow(
    name="Daily Sales ETL",
    description="Reads the purchases, cleans them, loads daily sales and customers into the warehouse.",
    schedule=CronSchedule("0 0 * * *"),
    tags=["sales", "warehouse"],
    configurations={
        "development": {"log_level": "INFO", "shown_rejects": 5, "keep_staging": False, "warn_bad_percent": 5.0},
        "debug": {"log_level": "DEBUG", "shown_rejects": 200, "keep_staging": True, "warn_bad_percent": 0.0},
        "release": {"log_level": "INFO", "shown_rejects": 0, "keep_staging": False, "warn_bad_percent": 1.0},
    },
)
def daily_sales_etl(source: str = SALES_FILE, warn_bad_percent: float = 5.0) -> dict[str, Any]:
    """Loads `source` (gzip or plain; a relative name is looked up in examples/data). More bad lines than
    `warn_bad_percent` make a warning."""
    run = run_id()
    staging = folder("staging") / f"{run}.db"
    extract_purchases(source, str(staging))
    cleaning = clean_purchases(str(staging), setting("shown_rejects", 5), warn_bad_percent)
    customers = build_customer_table(str(staging))
    days = build_daily_sales(str(staging))
    totals = publish_warehouse(source, str(staging), cleaning, run)
    if not setting("keep_staging", False):
        staging.unlink()
    run_log().info(
        "%s purchases, %s customers, %s CDs on %s days are in %s",
        f"{totals.purchases:,}",
        f"{customers:,}",
        f"{totals.cds:,}",
        f"{days:,}",
        warehouse_path(),
    )
    return {
        "purchases": totals.purchases,
        "customers": totals.customers,
        "cds": totals.cds,
        "days": days,
        "rejected": cleaning.rejected,
        "reasons": cleaning.reasons,
        "warehouse": str(warehouse_path()),
    }


@task(weight=1, estimated_time=100)
def ensure_warehouse() -> bool:
    """Loads the sales if no ETL has run yet; returns whether it had to."""
    if is_loaded(warehouse_path()):
        return False
    run_log().info("The warehouse is empty, Daily Sales ETL has not run yet: loading %s first", SALES_FILE)
    run = run_id()
    totals = sales.load_if_missing(
        source_path(SALES_FILE),
        folder("staging") / f"{run}-first.db",
        warehouse_path(),
        run=run,
        now=now().isoformat(),
        report=progress,
    )
    run_log().info("Loaded %s purchases of %s customers", f"{totals.purchases:,}", f"{totals.customers:,}")
    return True


# --- Churn Model Retraining -----------------------------------------------------------------------------------------


@task(weight=3, estimated_time=500)
def build_features() -> int:
    """What is known of each customer after 39 weeks."""
    customers = churn.build_features(warehouse_path(), progress)
    run_log().info(
        "%s customers, %d features from %s to %s", f"{customers:,}", len(churn.FEATURES), churn.START, churn.SPLIT
    )
    return customers


@task(weight=14, estimated_time=4000)
def train_model(candidate: str, kinds: str, sample_customers: int, folds: int) -> churn.Trained:
    """Compares kinds of models by cross-validation and fits the best one."""
    log = run_log()

    def report(share: float, text: str) -> None:
        log.debug(text)
        progress(share, text)

    trained = churn.train(
        warehouse_path(),
        Path(candidate),
        kinds=[kind.strip() for kind in kinds.split(",") if kind.strip()],
        sample=sample_customers,
        folds=folds,
        report=report,
    )
    log.info(
        "%s is the best in cross-validation (AUC %.4f), trained on %s customers",
        trained.kind,
        trained.cross_validated_auc,
        f"{trained.trained_on:,}",
    )
    return trained


@task(weight=1, estimated_time=300)
def evaluate_model(trained: churn.Trained) -> churn.Metrics:
    """Measures the candidate on customers that no model has learned from."""
    metrics = churn.evaluate(warehouse_path(), Path(trained.file))
    run_log().info(
        "AUC %.4f, Brier score %.4f on %s held-out customers, of whom %.1f %% bought again",
        metrics.auc,
        metrics.brier,
        f"{metrics.held_out:,}",
        100 * metrics.bought_again,
    )
    return metrics


@task(weight=1, estimated_time=300)
def keep_better_model(trained: churn.Trained, metrics: churn.Metrics, min_gain: float, run: str) -> churn.Verdict:
    """Puts the candidate in use if it beats the model in use."""
    verdict = churn.keep_if_better(
        warehouse_path(),
        folder("models"),
        trained,
        metrics,
        min_gain=min_gain,
        run=run,
        configuration=getattr(runtime.flow_run.configuration, "name", ""),
        now=now().isoformat(),
    )
    run_log().info("Model %d %s", verdict.version, verdict.sentence)
    return verdict


@flow(
    name="Churn Model Retraining",
    description="Learns who buys again in the next 39 weeks; keeps the model only if it beats the one in use.",
    schedule=CronSchedule("0 0 * * 0"),
    tags=["model", "warehouse"],
    configurations={
        "development": {"log_level": "INFO", "kinds": "logistic,boosting", "sample_customers": 4000, "folds": 3},
        "debug": {"log_level": "DEBUG", "kinds": "logistic", "sample_customers": 500, "folds": 3},
        "release": {"log_level": "INFO", "kinds": "logistic,boosting,forest", "sample_customers": 0, "folds": 5},
    },
)
def churn_model_retraining(
    kinds: str = "logistic,boosting", sample_customers: int = 4000, folds: int = 3, min_gain: float = 0.0
) -> dict[str, Any]:
    """Trains on `sample_customers` (0: all), comparing `kinds` in `folds` folds; a new model must gain more than
    `min_gain` in AUC."""
    run = run_id()
    ensure_warehouse()
    build_features()
    trained = train_model(str(folder("models") / f"candidate-{run}.pkl"), kinds, sample_customers, folds)
    metrics = evaluate_model(trained)
    verdict = keep_better_model(trained, metrics, min_gain, run)
    return {
        "kept": verdict.kept,
        "version": verdict.version,
        "kind": trained.kind,
        "auc": round(metrics.auc, 4),
        "verdict": verdict.sentence,
    }


# --- Infrastructure Health Check ------------------------------------------------------------------------------------


def judged(reading: health.Reading) -> health.Reading:
    """Logs the reading; over its limit that is a warning and the task fails."""
    if not reading.passed:
        run_log().warning("%s", reading)
        raise health.CheckFailed(reading)
    run_log().info("%s: %s", reading, reading.detail)
    return reading


@task(weight=3, estimated_time=60)
def check_server_latency(url: str, max_latency_ms: float, requests: int) -> health.Reading:
    """How long the Perfect server takes to say that it is well."""
    return judged(health.server_latency(url, max_latency_ms, requests, progress))


@task(weight=1, estimated_time=10)
def check_disk(max_disk_percent: float) -> health.Reading:
    """How full the disk with Perfect's data is."""
    return judged(health.disk_used(perfect_home() if perfect_home().exists() else examples_home(), max_disk_percent))


@task(weight=1, estimated_time=10)
def check_memory(max_memory_percent: float) -> health.Reading:
    """How much of the memory is taken."""
    return judged(health.memory_used(max_memory_percent))


@task(weight=1, estimated_time=10)
def check_load(max_load_per_core: float) -> health.Reading:
    """How busy the processors are."""
    return judged(health.load_average(max_load_per_core))


@task(weight=1, estimated_time=10)
def check_database_size(max_database_mb: float) -> health.Reading:
    """How large Perfect's own database and the warehouse are."""
    return judged(health.database_size([perfect_home() / "flows.db", warehouse_path()], max_database_mb))


@task(weight=3, estimated_time=60)
def check_write_latency(max_write_ms: float, writes: int) -> health.Reading:
    """How long the disk takes to keep a promise: one synced transaction."""
    return judged(health.write_latency(examples_home(), max_write_ms, writes, progress))


@flow(
    name="Infrastructure Health Check",
    description="Measures server latency, disk, memory, load, database size and write latency against their limits.",
    schedule=IntervalSchedule(minutes=5),
    tags=["operations"],
    configurations={
        "development": {"log_level": "INFO", "samples": 5, "max_latency_ms": 2000.0, "max_write_ms": 2000.0},
        "debug": {"log_level": "DEBUG", "samples": 25, "max_latency_ms": 2000.0, "max_write_ms": 2000.0},
        "release": {"log_level": "WARNING", "samples": 10, "max_latency_ms": 500.0, "max_write_ms": 250.0},
    },
)
def infrastructure_health_check(
    url: str = "",
    max_latency_ms: float = 2000.0,
    max_disk_percent: float = 95.0,
    max_memory_percent: float = 95.0,
    max_load_per_core: float = 16.0,
    max_database_mb: float = 20_000.0,
    max_write_ms: float = 2000.0,
) -> dict[str, Any]:
    """Fails if any limit is crossed, after all checks were made. `url`: the server to ask (default: PERFECT_URL)."""
    board, samples = health.Board(), setting("samples", 5)
    with board.check() as add:
        add(check_server_latency(url.rstrip("/") or server_url(), max_latency_ms, samples))
    with board.check() as add:
        add(check_disk(max_disk_percent))
    with board.check() as add:
        add(check_memory(max_memory_percent))
    with board.check() as add:
        add(check_load(max_load_per_core))
    with board.check() as add:
        add(check_database_size(max_database_mb))
    with board.check() as add:
        add(check_write_latency(max_write_ms, samples))
    health.record(warehouse_path(), board.readings, run_id(), now())
    create_table_artifact([health.as_row(reading) for reading in board.readings], key="readings")
    problems = [str(reading) for reading in board.readings if not reading.passed]
    if problems:
        raise health.HealthCheckFailed("; ".join(problems))
    return {reading.name: reading.value for reading in board.readings}


# --- Weekly Executive Report ----------------------------------------------------------------------------------------


@task(weight=1, estimated_time=100)
def compute_kpis(week_of: str) -> kpis_of.Kpis:
    """The numbers of the week, of the week before and since the beginning."""
    kpis = kpis_of.compute_kpis(warehouse_path(), kpis_of.choose_week(warehouse_path(), week_of))
    run_log().info("%s", pages.headline(kpis))
    create_markdown_artifact(f"**{pages.headline(kpis)}**", key="headline", description=f"Week of {kpis.week.start}")
    return kpis


@task(weight=4, estimated_time=200)
def compute_trends(monday: date, weeks: int, top_customers: int) -> kpis_of.Trends:
    """Weeks, days, best customers, cohorts and the model: what the charts and tables show."""
    trends = kpis_of.compute_trends(warehouse_path(), monday, weeks, top_customers)
    run_log().debug(
        "%d weeks, %d days, %d cohorts, model: %s",
        len(trends.weeks),
        len(trends.days),
        len(trends.cohorts),
        trends.model and trends.model["version"],
    )
    starts, dollars = [str(week.start) for week in trends.weeks], [week.cents / 100 for week in trends.weeks]
    create_plot_artifact(line_chart("Revenue by week", starts, dollars, "$ "), key="revenue")
    return trends


@task(weight=4, estimated_time=200)
def render_pdf(kpis: kpis_of.Kpis, trends: kpis_of.Trends, compress: bool) -> str:
    """Draws the PDF; returns its path."""
    path = folder("outbox") / f"weekly-report-{kpis.week.start}.pdf"
    count = pages.render(path, kpis, trends, created=f"{now():%Y-%m-%d %H:%M} UTC", compress=compress, report=progress)
    run_log().info("%d pages, %s bytes: %s", count, f"{path.stat().st_size:,}", path)
    return str(path)


@task(weight=1, estimated_time=150)
def deliver_report(pdf: str, kpis: kpis_of.Kpis, sender: str, recipients: str) -> str:
    """E-mails the PDF, or puts the e-mail into the outbox."""
    path, monday = Path(pdf), kpis.week.start
    message = mail.compose(
        path,
        sender=sender,
        recipients=mail.addresses(recipients),
        subject=f"Weekly Executive Report, {pages.week_text(monday)}",
        text=pages.headline(kpis) + "\n",
    )
    outcome = mail.deliver(message, mail.smtp_url(), folder("outbox"), path.stem)
    run_log().info("Report for %s %s", recipients, outcome)
    return outcome


@flow(
    name="Weekly Executive Report",
    description="Computes KPIs, draws charts, renders a PDF and e-mails it.",
    schedule=CronSchedule("0 9 * * MON"),
    tags=["report", "warehouse"],
    configurations={
        "development": {"log_level": "INFO", "weeks": 26, "top_customers": 8, "compress": True},
        "debug": {"log_level": "DEBUG", "weeks": 13, "top_customers": 5, "compress": False},
        "release": {"log_level": "INFO", "weeks": 77, "top_customers": 10, "compress": True},
    },
)
def weekly_executive_report(
    week_of: str = "",
    recipients: str = "board@example.com",
    sender: str = "perfect@example.com",
    weeks: int = 26,
    top_customers: int = 8,
) -> dict[str, Any]:
    """Reports on the week that holds `week_of` (YYYY-MM-DD; empty: the last complete week), with `weeks` weeks in the
    chart. `recipients` are separated by commas; EXAMPLES_SMTP_URL names the mail server, else the outbox folder."""
    mail.addresses(recipients)  # refused before the work, not after it
    ensure_warehouse()
    kpis = compute_kpis(week_of)
    trends = compute_trends(kpis.week.start, weeks, top_customers)
    pdf = render_pdf(kpis, trends, setting("compress", True))
    delivered = deliver_report(pdf, kpis, sender, recipients)
    return {"week": str(kpis.week.start), "revenue_dollars": kpis.week.cents / 100, "pdf": pdf, "delivered": delivered}


if __name__ == "__main__":
    from perfect_client import serve  # the worker with its sockets; who only runs these flows does not need it

    serve()
