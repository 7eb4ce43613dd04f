"""Quality figures equal scikit-learn's and brute force; intervals equal the plain bootstrap's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from kdsearch.measure.quality import bootstrap_interval, confusion, paired_bootstrap, score

LABELS = ("ham", "spam", "odd:one")


def sample(rows: int, seed: int = 0, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.choice(3, rows, p=[0.7, 0.2, 0.1])
    logits = rng.normal(size=(rows, 3)).astype(np.float32)
    logits[np.arange(rows), true] += shift
    return logits, true


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    logits, true = sample(200, seed)
    predicted, probabilities = logits.argmax(1), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = score(logits, true, labels=LABELS, objective="f1:odd:one")
    assert scores.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert scores.quality == pytest.approx(f1_score(true == 2, predicted == 2))
    assert scores.nll == pytest.approx(log_loss(true, probabilities), rel=1e-5)
    expected = recall_score(true, predicted, average=None)
    assert scores.recall == pytest.approx(dict(zip(LABELS, expected, strict=True)))
    assert scores.agreement is None


def recall_by_trying_every_threshold(values: np.ndarray, is_true: np.ndarray, precision: float) -> float:
    best = 0.0
    for threshold in values:
        chosen = values >= threshold
        if is_true[chosen].mean() >= precision:
            best = max(best, is_true[chosen].sum() / is_true.sum())
    return best


@pytest.mark.parametrize("precision", ["0.5", "0.8", "0.95", "1", "1.0"])
def test_recall_at_precision_is_the_best_of_all_thresholds(precision: str) -> None:
    logits, true = sample(150, shift=2.0)
    logits = np.round(logits)  # many equal scores, which no threshold can part
    found = score(logits, true, labels=LABELS, objective=f"recall@precision={precision}:spam").quality
    log_p = logits[:, 1] - np.log(np.exp(logits).sum(1))
    assert found == pytest.approx(
        recall_by_trying_every_threshold(np.round(log_p, 5), true == 1, float(precision))
    )


def test_recall_at_an_impossible_precision_is_zero() -> None:
    logits, true = np.array([[0.0, 5.0], [0.0, 1.0]]), np.array([0, 1])
    assert score(logits, true, labels=("a", "b"), objective="recall@precision=0.9:b").quality == 0


@pytest.mark.parametrize("objective", ["f1:spam", "recall@precision=0.5:spam", "macro_f1"])
def test_what_is_undefined_is_zero(objective: str) -> None:
    logits, true = np.array([[3.0, 0.0, 0.0]] * 4), np.zeros(4, np.int64)
    scores = score(logits, true, labels=LABELS, objective=objective)
    assert scores.quality == (pytest.approx(1 / 3) if objective == "macro_f1" else 0)
    assert scores.recall == {"ham": 1.0, "spam": 0.0, "odd:one": 0.0}


def test_rows_without_a_label_count_for_the_agreement_only() -> None:
    logits, true = sample(100)
    extra = np.eye(3)[[0, 1, 2, 0]]
    teacher = np.concatenate([logits, extra[[1, 1, 2, 0]]])
    plain = score(logits, true, labels=LABELS, objective="accuracy")
    mixed = score(
        np.concatenate([logits, extra]),
        np.concatenate([true, np.full(4, -1)]),
        labels=LABELS,
        objective="accuracy",
        teacher_logits_NC=teacher,
    )
    assert mixed.agreement == pytest.approx(103 / 104)
    assert (mixed.quality, mixed.nll, mixed.recall) == (plain.quality, plain.nll, plain.recall)


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[classes]


def test_coverage_is_of_the_rows_that_any_historical_teacher_gets_right() -> None:
    true = np.array([0, 1, 2, 0, 1, -1])
    first = one_hot([0, 0, 2, 1, 2, 0])  # right in rows 0 and 2
    second = one_hot([1, 1, 2, 1, 0, 0])  # right in rows 1 and 2; row 4 is beyond both
    student = one_hot([0, 1, 0, 0, 1, 0])  # right in rows 0 and 1 of those, wrong in row 2
    kept = {"labels": LABELS, "objective": "accuracy"}
    historical = np.stack([first, second], axis=1)
    assert score(student, true, **kept, historical_NKC=historical).coverage == pytest.approx(2 / 3)
    swapped = historical[:, ::-1]
    assert score(student, true, **kept, historical_NKC=swapped).coverage == pytest.approx(2 / 3)
    alone = score(student, true, **kept, historical_NKC=historical[:, :1])
    assert alone.coverage == pytest.approx(1 / 2) and alone.agreement is None
    both = score(student, true, **kept, historical_NKC=historical, teacher_logits_NC=second)
    assert both.coverage == pytest.approx(2 / 3) and both.agreement == pytest.approx(2 / 6)


def test_without_historical_teachers_coverage_is_of_the_teacher() -> None:
    logits, true = sample(200)
    teacher, _ = sample(200, seed=1)
    kept = {"labels": LABELS, "objective": "accuracy"}
    found = score(logits, true, **kept, teacher_logits_NC=teacher)
    reached = teacher.argmax(1) == true
    assert found.coverage == pytest.approx((logits.argmax(1) == true)[reached].mean())
    assert found == score(logits, true, **kept, teacher_logits_NC=teacher, historical_NKC=teacher[:, None])
    assert score(true_logits(true), true, **kept, teacher_logits_NC=teacher).coverage == 1.0


def true_logits(true: np.ndarray) -> np.ndarray:
    return one_hot(true.tolist())


def test_coverage_without_any_teacher_is_none_and_of_nothing_is_zero() -> None:
    logits, true = sample(50)
    kept = {"labels": LABELS, "objective": "accuracy"}
    assert score(logits, true, **kept).coverage is None
    wrong = true_logits((true + 1) % 3)
    assert score(true_logits(true), true, **kept, teacher_logits_NC=wrong).coverage == 0.0


def test_huge_logits_stay_finite() -> None:
    scores = score(
        np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1]), labels=("a", "b"), objective="accuracy"
    )
    assert scores.nll == pytest.approx(1e4)


def test_no_labelled_row_or_an_unknown_objective_is_refused() -> None:
    logits, true = sample(5)
    with pytest.raises(ValueError, match="no row has a label"):
        score(logits, np.full(5, -1), labels=LABELS, objective="accuracy")
    with pytest.raises(ValueError, match="unknown objective"):
        score(logits, true, labels=LABELS, objective="beauty")


@pytest.mark.parametrize("objective", ["accuracy", "macro_f1", "f1:spam", "recall@precision=0.6:spam"])
def test_interval_is_that_of_resampling_rows_one_by_one(objective: str) -> None:
    logits, true = sample(300)
    value = score(logits, true, labels=LABELS, objective=objective).quality
    low, high = bootstrap_interval(logits, true, labels=LABELS, objective=objective, seed=1, draws=4000)
    rng = np.random.default_rng(2)
    draws = [rng.integers(0, 300, 300) for _ in range(1000)]
    plain = [score(logits[i], true[i], labels=LABELS, objective=objective).quality for i in draws]
    expected_low, expected_high = np.percentile(plain, [2.5, 97.5])
    assert low < value < high
    width = expected_high - expected_low
    assert low == pytest.approx(expected_low, abs=0.1 * width)
    assert high == pytest.approx(expected_high, abs=0.1 * width)


def test_interval_follows_seed_and_shrinks_with_rows() -> None:
    widths = []
    for rows in (100, 10_000):
        logits, true = sample(rows)
        args = {"labels": LABELS, "objective": "accuracy"}
        low, high = bootstrap_interval(logits, true, seed=3, **args)
        assert (low, high) == bootstrap_interval(logits, true, seed=3, **args)
        widths.append(high - low)
    assert (low, high) != bootstrap_interval(logits, true, seed=4, **args)
    assert 5 < widths[0] / widths[1] < 20  # by the square root of 100


@pytest.mark.parametrize("objective", ["accuracy", "f1:spam", "recall@precision=0.6:spam"])
def test_paired_difference(objective: str) -> None:
    first, true = sample(400, shift=2.0)
    second = first + np.random.default_rng(9).normal(size=first.shape).astype(np.float32)
    args = {"labels": LABELS, "objective": objective, "seed": 0}
    assert paired_bootstrap(first, first, true, **args) == (0.0, 0.0, 0.0)
    found = paired_bootstrap(first, second, true, **args)
    values = [score(x, true, labels=LABELS, objective=objective).quality for x in (first, second)]
    assert found.value == pytest.approx(values[0] - values[1])
    assert found.low < found.value < found.high
    back = paired_bootstrap(second, first, true, **args)
    assert back.value == pytest.approx(-found.value)


def test_pairing_makes_the_interval_narrower_than_two_apart() -> None:
    first, true = sample(400)
    second = first + 0.1 * np.random.default_rng(9).normal(size=first.shape).astype(np.float32)
    args = {"labels": LABELS, "objective": "accuracy", "seed": 0}
    paired = paired_bootstrap(first, second, true, **args)
    low, high = bootstrap_interval(first, true, **args)
    assert paired.high - paired.low < 0.6 * (high - low)


def test_confusion_counts_true_by_predicted_and_leaves_out_what_has_no_label() -> None:
    rng = np.random.default_rng(3)
    logits_NC, labels_N = rng.normal(size=(40, 3)), rng.integers(-1, 3, size=40)
    known = labels_N >= 0
    expected = confusion_matrix(labels_N[known], logits_NC[known].argmax(1), labels=range(3))
    assert confusion(logits_NC, labels_N) == tuple(map(tuple, expected.tolist()))
    assert confusion(logits_NC, np.full(40, -1)) == ((0, 0, 0),) * 3
