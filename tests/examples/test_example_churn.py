"""Churn Model Retraining: nothing leaks from the held-out customers, and only a better model is put in use."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import example_churn as churn
import pytest
from example_home import extra_packages
from example_warehouse import connect

METRICS = churn.Metrics(auc=0.75, log_loss=0.5, brier=0.16, held_out=10, bought_again=0.3, deciles=[(0.5, 0.5)])


def quiet(share: float, text: str) -> None:
    pass


def train(warehouse: Path, folder: Path, kinds: str = "logistic", sample: int = 400) -> churn.Trained:
    file = folder / "candidate.pkl"
    return churn.train(warehouse, file, kinds=kinds.split(","), sample=sample, folds=2, report=quiet)


def keep(warehouse: Path, folder: Path, trained: churn.Trained, metrics: churn.Metrics) -> churn.Verdict:
    return churn.keep_if_better(
        warehouse, folder, trained, metrics, min_gain=0.0, run="test", configuration="debug", now="2026-01-05"
    )


@pytest.fixture
def features(warehouse: Path) -> Path:
    churn.build_features(warehouse, quiet)
    return warehouse


def test_features_come_from_the_first_39_weeks_alone() -> None:
    purchases = [(date(1997, 1, 1), 2, 2000), (date(1997, 1, 31), 1, 1000), (date(1997, 9, 1), 1, 3000)]

    values = dict(zip(churn.FEATURES, churn.features_of(purchases)))

    assert (date(1997, 10, 1), date(1998, 7, 1)) == (churn.SPLIT, churn.END)
    assert values == {
        "repeat_purchases": 2,
        "days_since_last": 30,
        "days_since_first": 273,
        "dollars": 60.0,
        "dollars_a_purchase": 20.0,
        "cds": 4,
        "mean_gap_days": 121.5,
        "purchases_last_13_weeks": 1,
        "dollars_last_13_weeks": 30.0,
    }


def test_no_feature_knows_the_weeks_that_are_to_be_predicted(features: Path) -> None:
    values, labels = churn.read_features(features, held_out=False)
    more, more_labels = churn.read_features(features, held_out=True)
    with connect(features) as db:
        cents = db.execute("SELECT sum(cents) FROM purchases WHERE day < '1997-10-01'").fetchone()[0]
        again = db.execute("SELECT count(DISTINCT customer_id) FROM purchases WHERE day >= '1997-10-01'").fetchone()[0]

    assert sum(row[churn.FEATURES.index("dollars")] for row in values + more) == pytest.approx(cents / 100)
    assert min(row[churn.FEATURES.index("days_since_last")] for row in values + more) >= 1
    assert sum(labels) + sum(more_labels) == again


def test_a_fifth_of_the_customers_is_held_out_for_ever(features: Path) -> None:
    learned, _ = churn.read_features(features, held_out=False)
    held_out, labels = churn.read_features(features, held_out=True)

    assert len(learned) + len(held_out) == 23_570
    assert 0.18 < len(held_out) / 23_570 < 0.22
    assert 0.25 < sum(labels) / len(labels) < 0.35
    with connect(features) as db:
        rows = db.execute("SELECT customer_id, held_out FROM churn_features").fetchall()
    assert all(churn.is_held_out(customer) == bool(out) for customer, out in rows)


def test_a_model_learns_something_real(sklearn: Any, features: Path, tmp_path: Path) -> None:
    trained = train(features, tmp_path, sample=2000)

    metrics = churn.evaluate(features, Path(trained.file))

    assert trained.trained_on == 2000
    assert metrics.auc > 0.7
    assert len(metrics.deciles) == 10
    assert metrics.deciles[0][1] > 2 * metrics.deciles[-1][1]


def test_the_first_model_is_kept_and_the_same_one_again_is_not(sklearn: Any, features: Path, tmp_path: Path) -> None:
    first = keep(features, tmp_path, trained := train(features, tmp_path), churn.evaluate(features, Path(trained.file)))
    again = train(features, tmp_path)

    second = keep(features, tmp_path, again, churn.evaluate(features, Path(again.file)))

    assert (first.kept, second.kept) == (True, False)
    assert second.sentence.startswith("not kept: AUC") and "of version 1 in use" in second.sentence
    assert sorted(path.name for path in tmp_path.glob("*.pkl")) == ["churn-v1.pkl"]


def test_a_better_model_replaces_the_one_in_use(sklearn: Any, features: Path, tmp_path: Path) -> None:
    worse = train(features, tmp_path, sample=100)
    keep(features, tmp_path, worse, churn.evaluate(features, Path(worse.file)))
    better = train(features, tmp_path, sample=4000)

    verdict = keep(features, tmp_path, better, churn.evaluate(features, Path(better.file)))

    assert verdict.kept and verdict.version == 2
    with connect(features) as db:
        assert db.execute("SELECT version, file FROM models WHERE in_use = 1").fetchall() == [(2, "churn-v2.pkl")]
    assert (tmp_path / "churn-v2.pkl").exists()


def test_a_damaged_model_in_use_is_replaced_and_said_so(sklearn: Any, features: Path, tmp_path: Path) -> None:
    keep(features, tmp_path, train(features, tmp_path), METRICS)
    (tmp_path / "churn-v1.pkl").write_bytes(b"cut")

    verdict = keep(features, tmp_path, train(features, tmp_path), METRICS)

    assert verdict.kept
    assert "version 1 cannot be used" in verdict.sentence


@pytest.mark.parametrize(
    ("auc", "in_use", "gain", "kept"),
    [
        (0.7, None, 0.0, True),
        (0.8, 0.75, 0.0, True),
        (0.75, 0.75, 0.0, False),
        (0.7, 0.75, 0.0, False),
        (0.76, 0.75, 0.02, False),
    ],
)
def test_only_a_gain_counts(auc: float, in_use: Any, gain: float, kept: bool) -> None:
    rival = None if in_use is None else churn.InUse(1, churn.Metrics(in_use, 0.5, 0.2, 10, 0.3, []), "")

    assert churn.judge(churn.Metrics(auc, 0.5, 0.2, 10, 0.3, []), rival, gain)[0] is kept


def test_unknown_kinds_and_impossible_samples_are_refused(sklearn: Any, features: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unknown kind of model oracle: choose from logistic, boosting, forest"):
        train(features, tmp_path, kinds="oracle")
    with pytest.raises(ValueError, match="sample_customers is 5"):
        train(features, tmp_path, sample=5)


def test_a_missing_package_is_told_in_a_sentence() -> None:
    words = r"no_such_package is not installed: install examples/requirements\.txt"
    with pytest.raises(RuntimeError, match=words), extra_packages():
        __import__("no_such_package")
