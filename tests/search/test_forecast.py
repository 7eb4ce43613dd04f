"""The forecast of a final quality: exact where curves are lines, honest where they are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kdsearch.core.records import TrialConfig, TrialState, Tried
from kdsearch.search.forecast import LEAST_SD, MIN_COMPLETED, Forecaster

RUNG, EPOCHS = 1, 6


def trial(
    number: int,
    early: float,
    final: float | None,
    *,
    scheme: str = "offline",
    student: str = "bag",
    rate: float = 1e-3,
    latency_ms: float | None = 1.0,
) -> Tried:
    state: TrialState = "running" if final is None else "complete"
    config = TrialConfig(
        student=student,
        student_params={},
        scheme=scheme,
        scheme_params={},
        learning_rate=rate,
        batch_size=32,
        epochs=EPOCHS,
        seed=17,
    )
    curve = {RUNG: early} if final is None else {RUNG: early, EPOCHS: final}
    return Tried(
        number=number, config=config, state=state, latency_ms=latency_ms, qualities=curve, quality=final
    )


def completed(
    count: int, rule: Callable[[float, int], float], seed: int = 0, sd: float = 0.0, **of_trial: str
) -> list[Tried]:
    rng = np.random.default_rng(seed)
    early = rng.uniform(0.5, 0.8, count)
    return [
        trial(n, float(e), rule(float(e), n) + rng.normal(0, sd), **of_trial)  # type: ignore[arg-type]
        for n, e in enumerate(early)
    ]


def forecaster(tried: list[Tried]) -> Forecaster:
    found = Forecaster.of(tried, RUNG)
    assert found is not None
    return found


def test_a_line_is_found() -> None:
    found = forecaster(completed(40, lambda e, _: 0.4 + 0.5 * e)).forecast(trial(99, 0.6, None))
    assert found.mean == pytest.approx(0.7, abs=1e-3)
    assert found.sd == pytest.approx(LEAST_SD, rel=0.2), "equal trainings differ by more than nothing"
    assert found.num_completed == 40


def test_a_scheme_that_starts_slower_has_its_own_offset() -> None:
    quick = completed(30, lambda e, _: 0.4 + 0.5 * e, sd=0.003)
    slow = completed(30, lambda e, _: 0.5 + 0.5 * e, seed=1, sd=0.003, scheme="hint")
    model = forecaster([*quick, *slow])
    one = model.forecast(trial(99, 0.6, None))
    other = model.forecast(trial(99, 0.6, None, scheme="hint"))
    assert other.mean - one.mean == pytest.approx(0.1, abs=0.01)
    assert other.offset - one.offset == pytest.approx(0.1, abs=0.01)


def test_a_single_trial_of_a_scheme_moves_its_offset_only_in_part() -> None:
    usual = completed(30, lambda e, _: 0.4 + 0.5 * e, sd=0.01)
    lucky = trial(50, 0.6, 0.72, scheme="hint")
    found = forecaster([*usual, lucky]).forecast(trial(99, 0.6, None, scheme="hint"))
    assert 0.70 < found.mean < 0.718
    assert found.sd > forecaster([*usual, lucky]).forecast(trial(99, 0.6, None)).sd


def test_a_scheme_without_a_completed_trial_is_not_known() -> None:
    model = forecaster(completed(20, lambda e, _: 0.9))
    assert model.knows(trial(99, 0.6, None))
    assert not model.knows(trial(99, 0.6, None, scheme="hint"))
    assert not model.knows(trial(99, 0.6, None, student="bilstm"))


def test_too_few_completed_trials_forecast_nothing() -> None:
    tried = completed(MIN_COMPLETED, lambda e, _: 0.9)
    assert Forecaster.of(tried, RUNG) is not None
    assert Forecaster.of(tried[1:], RUNG) is None
    unmeasured = trial(0, 0.6, 0.9, latency_ms=None)
    assert Forecaster.of([unmeasured, *tried[1:]], RUNG) is None
    assert Forecaster.of([trial(0, 0.6, None), *tried[1:]], RUNG) is None


def test_nothing_is_extrapolated_below_the_survivors() -> None:
    tried = completed(30, lambda e, _: 0.4 + 0.5 * e, sd=0.003)
    model = forecaster(tried)
    lowest = min(t.qualities[RUNG] for t in tried)
    assert model.forecast(trial(99, 0.1, None)).upper == model.forecast(trial(99, lowest, None)).upper


def test_the_best_epoch_counts_so_no_forecast_is_below_it() -> None:
    model = forecaster(completed(30, lambda e, _: 0.6, sd=0.001))
    found = model.forecast(trial(99, 0.97, None))
    assert found.mean >= 0.97
    assert found.upper >= 0.97


@pytest.mark.parametrize("early", [0.0, 0.5, 1.0])
def test_equal_curves_give_a_forecast_all_the_same(early: float) -> None:
    found = forecaster([trial(n, early, early) for n in range(12)]).forecast(trial(99, early, None))
    assert found.mean == pytest.approx(early, abs=1e-6)
    assert 0 < found.sd < 0.01


def test_the_bound_holds_as_often_as_it_says_with_few_trials_too() -> None:
    """Of fresh trials, 2.5 % may end above it: one-sided, all of them from the model's own family."""
    above, count = 0, 0
    for seed in range(150):
        model = forecaster(completed(14, lambda e, _: 0.4 + 0.5 * e, seed=seed, sd=0.02))
        rng = np.random.default_rng([seed, 1])
        for early in rng.uniform(0.5, 0.8, 10):
            bound = model.forecast(trial(99, float(early), None)).upper
            above += 0.4 + 0.5 * early + rng.normal(0, 0.02) > bound
            count += 1
    assert 0.005 < above / count < 0.05


def test_trials_that_were_stopped_for_what_the_model_sees_do_not_bend_it() -> None:
    everyone = completed(400, lambda e, _: 0.4 + 0.5 * e, sd=0.01)
    survivors = [t for t in everyone if t.qualities[RUNG] > 0.62]
    whole = forecaster(everyone).forecast(trial(999, 0.65, None))
    left = forecaster(survivors).forecast(trial(999, 0.65, None))
    assert len(survivors) < 300
    assert left.mean == pytest.approx(whole.mean, abs=0.003)


def test_what_later_rungs_took_away_raises_the_forecast() -> None:
    everyone = completed(400, lambda e, _: 0.4 + 0.5 * e, sd=0.02)
    promising = [t for t in everyone if (t.quality or 0) > 0.4 + 0.5 * t.qualities[RUNG]]
    whole = forecaster(everyone).forecast(trial(999, 0.65, None))
    assert forecaster(promising).forecast(trial(999, 0.65, None)).mean > whole.mean
