"""Churn Model Retraining: who buys again in the next 39 weeks, told from the first 39?

Which customers are held out depends on nothing but their number. So no model, old or new, was ever trained on them,
and every model is judged on the same ones.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from example_home import extra_packages, part_of
from example_warehouse import connect, writing

Report = Callable[[float, str], Any]
START = date(1997, 1, 1)
SPLIT = START + timedelta(weeks=39)
END = SPLIT + timedelta(weeks=39)
HELD_OUT_EVERY = 5  # one customer in five
SEED = 1997
COST = {"logistic": 1, "boosting": 2, "forest": 5}  # rough cost of one fold, for a progress bar that moves evenly
FEATURES = (
    "repeat_purchases",
    "days_since_last",
    "days_since_first",
    "dollars",
    "dollars_a_purchase",
    "cds",
    "mean_gap_days",
    "purchases_last_13_weeks",
    "dollars_last_13_weeks",
)


@dataclass(frozen=True)
class Trained:
    """A candidate on disk. `cross_validated_auc` is measured on training customers only."""

    file: str
    kind: str
    trained_on: int
    cross_validated_auc: float


@dataclass(frozen=True)
class Metrics:
    """How a model does on the held-out customers. `deciles`: from the likeliest tenth to the unlikeliest, the share
    that was predicted to buy again and the share that did (0–1)."""

    auc: float
    log_loss: float
    brier: float
    held_out: int
    bought_again: float
    deciles: list[tuple[float, float]]


class Verdict(NamedTuple):
    """What became of a candidate."""

    kept: bool
    version: int
    sentence: str


# --- features -------------------------------------------------------------------------------------------------------


def is_held_out(customer_id: int) -> bool:
    """True for the fifth of the customers that no model may learn from."""
    return zlib.crc32(str(customer_id).encode()) % HELD_OUT_EVERY == 0


def features_of(purchases: Sequence[tuple[date, int, int]]) -> list[float]:
    """The FEATURES of one customer from (day, cds, cents) in the order of days, all before SPLIT."""
    first, last = purchases[0][0], purchases[-1][0]
    repeats = len({day for day, _, _ in purchases}) - 1
    cents = sum(spent for _, _, spent in purchases)
    recent = [spent for day, _, spent in purchases if day >= SPLIT - timedelta(weeks=13)]
    gap = (last - first).days / repeats if repeats else (SPLIT - last).days
    return [
        repeats,
        (SPLIT - last).days,
        (SPLIT - first).days,
        cents / 100,
        cents / 100 / len(purchases),
        sum(cds for _, cds, _ in purchases),
        round(gap, 2),
        len(recent),
        sum(recent) / 100,
    ]


def build_features(warehouse: Path, report: Report) -> int:
    """Writes the table `churn_features`, one row for each customer seen before SPLIT; returns the number of rows."""
    with connect(warehouse) as db:
        known = db.execute("SELECT count(*) FROM customers WHERE first_day < ?", (SPLIT.isoformat(),)).fetchone()[0]
        again = {
            row[0]
            for row in db.execute(
                "SELECT DISTINCT customer_id FROM purchases WHERE day >= ? AND day < ?",
                (SPLIT.isoformat(), END.isoformat()),
            )
        }
        bought = db.execute(
            "SELECT customer_id, day, cds, cents FROM purchases WHERE day < ? ORDER BY customer_id, day",
            (SPLIT.isoformat(),),
        ).fetchall()
    if not known:
        raise RuntimeError(f"The warehouse has no purchase before {SPLIT}: run Daily Sales ETL first.")
    days = {text: date.fromisoformat(text) for text in {row[1] for row in bought}}
    rows = []
    for customer, group in groupby(bought, key=lambda row: row[0]):
        values = features_of([(days[day], cds, cents) for _, day, cds, cents in group])
        rows.append((customer, is_held_out(customer), customer in again, json.dumps(values)))
        if len(rows) % max(1, known // 100) == 0:
            report(0.9 * len(rows) / known, f"{len(rows):,} of {known:,} customers")
    with writing(warehouse) as db:
        db.execute("DELETE FROM churn_features")
        db.executemany("INSERT INTO churn_features VALUES (?, ?, ?, ?)", rows)
    return len(rows)


def read_features(warehouse: Path, *, held_out: bool, limit: int = 0) -> tuple[list[list[float]], list[int]]:
    """(features, bought again) of the held-out customers or of the others; of the first `limit` ones if not 0.

    Ordered by a hash of the number, so that the first ones are a fair sample and the same in every run.
    """
    with connect(warehouse) as db:
        rows = db.execute(
            "SELECT customer_id, features, bought_again FROM churn_features WHERE held_out = ?", (held_out,)
        ).fetchall()
    if not rows:
        raise RuntimeError("The warehouse has no churn features: the task build_features must run first.")
    rows.sort(key=lambda row: zlib.crc32(b"order%d" % row[0]))
    chosen = rows[:limit] if limit else rows
    return [json.loads(features) for _, features, _ in chosen], [again for _, _, again in chosen]


# --- training -------------------------------------------------------------------------------------------------------


def _candidates() -> dict[str, Any]:
    """Untrained models by kind, cheapest first."""
    # Loaded here: scikit-learn with numpy and scipy costs 100 MB and a second that an idle worker should not pay.
    with extra_packages():
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import PowerTransformer
    return {
        "logistic": make_pipeline(PowerTransformer(), LogisticRegression(max_iter=500, random_state=SEED)),
        "boosting": HistGradientBoostingClassifier(
            max_iter=120,
            learning_rate=0.05,
            max_leaf_nodes=12,
            min_samples_leaf=40,
            l2_regularization=1.0,
            random_state=SEED,
        ),
        "forest": RandomForestClassifier(n_estimators=60, min_samples_leaf=25, random_state=SEED),
    }


def train(
    warehouse: Path, candidate: Path, *, kinds: Iterable[str], sample: int, folds: int, report: Report
) -> Trained:
    """Picks the best of `kinds` by cross-validation on `sample` customers (0 = all), fits it and saves it.

    Raises ValueError for an unknown kind, a sample under 100 or folds outside 2–20.
    """
    kinds = list(kinds)
    if sample < 0 or 0 < sample < 100 or not 2 <= folds <= 20:
        raise ValueError(f"sample_customers is {sample}, folds is {folds}: choose 0 (all) or from 100, and 2 to 20.")
    models = _candidates()
    with extra_packages():  # comes with scikit-learn
        from threadpoolctl import threadpool_limits
    unknown = [kind for kind in kinds if kind not in models]
    if unknown or not kinds:
        raise ValueError(f"Unknown kind of model {', '.join(unknown) or '(none)'}: choose from {', '.join(models)}.")
    features, labels = read_features(warehouse, held_out=False, limit=sample)
    # One thread: OpenMP's threads wait for each other in a busy loop, ten times slower when the cores are shared.
    with threadpool_limits(limits=1):
        scores = _cross_validate({kind: models[kind] for kind in kinds}, features, labels, folds, report)
        best = max(scores, key=lambda kind: scores[kind])
        model = models[best].fit(features, labels)
    save_model(candidate, model)
    return Trained(str(candidate), best, len(labels), scores[best])


def _cross_validate(
    models: dict[str, Any], features: list[list[float]], labels: list[int], folds: int, report: Report
) -> dict[str, float]:
    with extra_packages():  # lazy for the same reason as in _candidates
        import numpy
        from sklearn.base import clone
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold
    x, y = numpy.asarray(features), numpy.asarray(labels)
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=SEED).split(x, y))
    scores: dict[str, list[float]] = {kind: [] for kind in models}
    cost, done = sum(COST[kind] for kind in models) * (folds + 1), 0
    for kind, fold in ((k, f) for k in models for f in range(folds)):
        learn, check = splits[fold]
        model = clone(models[kind]).fit(x[learn], y[learn])
        scores[kind].append(float(roc_auc_score(y[check], model.predict_proba(x[check])[:, 1])))
        done += COST[kind]
        report(done / cost, f"{kind}, fold {fold + 1} of {folds}: AUC {scores[kind][-1]:.4f}")
    return {kind: sum(values) / len(values) for kind, values in scores.items()}


def save_model(path: Path, model: Any) -> None:
    """Writes a model so that a reader sees all of it or none."""
    part = part_of(path)
    with part.open("wb") as file:
        pickle.dump({"features": FEATURES, "model": model}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def load_model(path: Path) -> Any:
    """The model in a file of our own making. Raises ValueError if it was made for other features."""
    with path.open("rb") as file:
        saved = pickle.load(file)
    if tuple(saved["features"]) != FEATURES:
        raise ValueError(f"{path.name} was trained on other features.")
    return saved["model"]


# --- evaluation -----------------------------------------------------------------------------------------------------


def evaluate(warehouse: Path, file: Path) -> Metrics:
    """Measures a saved model on the held-out customers."""
    features, labels = read_features(warehouse, held_out=True)
    with extra_packages():  # lazy for the same reason as in _candidates
        import numpy
        from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
        from threadpoolctl import threadpool_limits
    with threadpool_limits(limits=1):  # for the same reason as in train
        chances = load_model(file).predict_proba(numpy.asarray(features))[:, 1]
    return Metrics(
        auc=float(roc_auc_score(labels, chances)),
        log_loss=float(log_loss(labels, chances)),
        brier=float(brier_score_loss(labels, chances)),
        held_out=len(labels),
        bought_again=sum(labels) / len(labels),
        deciles=_deciles([float(c) for c in chances], labels),
    )


def _deciles(chances: Sequence[float], labels: Sequence[int]) -> list[tuple[float, float]]:
    ranked = sorted(zip(chances, labels), reverse=True)
    size = math.ceil(len(ranked) / 10)
    tenths = [ranked[start : start + size] for start in range(0, len(ranked), size)]
    return [(sum(c for c, _ in t) / len(t), sum(y for _, y in t) / len(t)) for t in tenths]


# --- the model in use -----------------------------------------------------------------------------------------------


class InUse(NamedTuple):
    """The model in use: its version and file, and its metrics measured now, on the present held-out customers."""

    version: int
    metrics: Metrics | None
    problem: str


def model_in_use(warehouse: Path, models: Path) -> InUse | None:
    """None before the first model. A file that cannot be used any more has no metrics but a `problem`."""
    with writing(warehouse) as db:
        row = db.execute("SELECT version, file FROM models WHERE in_use = 1").fetchone()
    if row is None:
        return None
    try:
        return InUse(row[0], evaluate(warehouse, models / row[1]), "")
    except Exception as error:  # unpickling may raise anything: another scikit-learn, a cut file, a missing one
        return InUse(row[0], None, f"{type(error).__name__}: {error}")


def judge(metrics: Metrics, in_use: InUse | None, min_gain: float) -> tuple[bool, str]:
    """(keep the candidate?, why). It must beat the AUC of the model in use by more than `min_gain`."""
    if in_use is None:
        return True, f"kept: AUC {metrics.auc:.4f}, the first model"
    if in_use.metrics is None:
        return True, f"kept: AUC {metrics.auc:.4f}; version {in_use.version} cannot be used ({in_use.problem})"
    rival = f"AUC {metrics.auc:.4f} against {in_use.metrics.auc:.4f} of version {in_use.version} in use"
    if metrics.auc > in_use.metrics.auc + min_gain:
        return True, f"kept: {rival}"
    return False, f"not kept: {rival}" + (f", must gain more than {min_gain:g}" if min_gain else "")


def keep_if_better(
    warehouse: Path,
    models: Path,
    trained: Trained,
    metrics: Metrics,
    *,
    min_gain: float,
    run: str,
    configuration: str,
    now: str,
) -> Verdict:
    """Puts the candidate in use if it beats the model in use, else drops it; either way leaves a row in `models`.

    Compare and swap: if another run changed the model in use meanwhile, the comparison is made again.
    """
    while True:
        in_use = model_in_use(warehouse, models)
        kept, sentence = judge(metrics, in_use, min_gain)
        with writing(warehouse) as db:
            row = db.execute("SELECT version FROM models WHERE in_use = 1").fetchone()
            if (row and row[0]) == (in_use and in_use.version):
                version = _record(db, models, trained, metrics, kept, sentence, (now, run, configuration))
                return Verdict(kept, version, sentence)


def _record(
    db: sqlite3.Connection,
    models: Path,
    trained: Trained,
    metrics: Metrics,
    kept: bool,
    sentence: str,
    origin: tuple[str, str, str],
) -> int:
    version = int(db.execute("SELECT coalesce(max(version), 0) + 1 FROM models").fetchone()[0])
    file = f"churn-v{version}.pkl"
    if kept:  # before the commit: a kill in between leaves a file that nobody names, never a name without its file
        os.replace(trained.file, models / file)
        db.execute("UPDATE models SET in_use = 0 WHERE in_use = 1")
    else:
        Path(trained.file).unlink()
    db.execute(
        "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            version,
            *origin,
            trained.kind,
            trained.trained_on,
            metrics.auc,
            json.dumps(asdict(metrics)),
            file if kept else "",
            kept,
            sentence,
        ),
    )
    return version
