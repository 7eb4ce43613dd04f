"""How good the exported weights are: the validation pool again, and the test pool once per trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdsearch.core.blobs import Blobs
from kdsearch.core.records import Scores
from kdsearch.data.prepared import Prepared, Vocabulary
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.stage import HISTORICAL
from kdsearch.export.manifest import Evaluation
from kdsearch.export.verify import Run, check_same_choice, fail, largest_difference, pool_logits
from kdsearch.measure.quality import bootstrap_interval, score
from kdsearch.store import readings
from kdsearch.store.connect import Store

FloatArray = npt.NDArray[np.float32]

QUALITY_TOLERANCE = 0.005
"""Of the reloaded weights' quality; logits that agree may still order two rows the other way round."""
EXACT = 1e-9
BOOTSTRAP_SEED = 17


@dataclass(frozen=True)
class Remeasured:
    """The validation pool, scored again."""

    evaluation: Evaluation
    """Of the stored logits: the figures that the study shows."""
    stored_diff: float
    quality_diff: float


def load_pool(blobs: Blobs, vocabulary: Vocabulary, name: str) -> TokenPool:
    """One tokenised pool, as the student reads it."""
    return TokenPool.load(blobs.open(vocabulary.tokens[name]))


def load_array(blobs: Blobs, sha256: str) -> FloatArray:
    """A stored ``.npy`` of logits."""
    logits_NC: FloatArray = np.load(blobs.open(sha256), allow_pickle=False)
    return logits_NC


def remeasure(
    run: Run,
    blobs: Blobs,
    prepared: Prepared,
    vocabulary: Vocabulary,
    *,
    objective: str,
    recorded: Scores,
    logits: str,
) -> Remeasured:
    """Compare the exported weights with what was recorded; VerificationError where they differ."""
    pool = load_pool(blobs, vocabulary, "validation")
    stored_NC = load_array(blobs, logits)
    found_NC = _logits(run, pool, prepared, vocabulary)
    of = "the exported weights against the stored validation logits"
    stored_diff = largest_difference(stored_NC, found_NC, of=of)
    check_same_choice(stored_NC, found_NC, of=of)
    teachers = _teachers(blobs, prepared)
    stored = _evaluate(stored_NC, pool, prepared, objective, teachers)
    found = _evaluate(found_NC, pool, prepared, objective, teachers, interval=False)
    if abs(stored.scores.quality - recorded.quality) > EXACT:
        raise fail(
            f"the stored validation logits have {objective} {stored.scores.quality:.6f}, "
            f"but {recorded.quality:.6f} is recorded"
        )
    quality_diff = abs(found.scores.quality - recorded.quality)
    if quality_diff > QUALITY_TOLERANCE:
        raise fail(
            f"the exported weights have {objective} {found.scores.quality:.6f} on the validation pool, "
            f"but {recorded.quality:.6f} was measured"
        )
    return Remeasured(stored, stored_diff, quality_diff)


def _logits(run: Run, pool: TokenPool, prepared: Prepared, vocabulary: Vocabulary) -> FloatArray:
    return pool_logits(run, pool, num_labels=len(prepared.labels), pad_id=vocabulary.pad_id)


@dataclass(frozen=True)
class _Teachers:
    """What teachers say of the validation pool."""

    logits_NC: FloatArray | None = None
    historical_NKC: FloatArray | None = None


def _teachers(blobs: Blobs, prepared: Prepared) -> _Teachers:
    own = prepared.pools["validation"].logits
    past = prepared.signals.get(HISTORICAL, {}).get("validation")
    return _Teachers(*(None if sha256 is None else load_array(blobs, sha256) for sha256 in (own, past)))


def _evaluate(
    logits_NC: FloatArray,
    pool: TokenPool,
    prepared: Prepared,
    objective: str,
    teachers: _Teachers,
    *,
    interval: bool = True,
) -> Evaluation:
    labels, labels_N = prepared.labels, pool.labels_N
    scores = score(
        logits_NC,
        labels_N,
        labels=labels,
        objective=objective,
        teacher_logits_NC=teachers.logits_NC,
        historical_NKC=teachers.historical_NKC,
    )
    bounds = (scores.quality, scores.quality)
    if interval:
        bounds = bootstrap_interval(
            logits_NC, labels_N, labels=labels, objective=objective, seed=BOOTSTRAP_SEED
        )
    return Evaluation(scores=scores, interval=bounds, num_rows=int((labels_N >= 0).sum()))


def evaluate_validation(
    logits_NC: FloatArray, pool: TokenPool, blobs: Blobs, prepared: Prepared, objective: str
) -> Evaluation:
    """Scores of other logits on the validation pool, e.g. those of a quantised graph."""
    return _evaluate(logits_NC, pool, prepared, objective, _teachers(blobs, prepared))


def read_test(
    run: Run,
    store: Store,
    prepared: Prepared,
    vocabulary: Vocabulary,
    *,
    study_id: int,
    trial: int,
    objective: str,
) -> tuple[Evaluation | None, int]:
    """Scores on the test pool, and how many trials of the study have been scored on it until now.

    Each trial is scored once, ever: a second export gets the recorded figures. (None, 0) without
    a test pool.
    """
    if "test" not in prepared.pools:
        return None, 0
    recorded = readings.find(store.engine, study_id, trial)
    if recorded is None:
        pool = load_pool(store.blobs, vocabulary, "test")
        found = _evaluate(_logits(run, pool, prepared, vocabulary), pool, prepared, objective, _Teachers())
        recorded = readings.record(store.engine, study_id, trial, found.to_json())
    return Evaluation.from_json(recorded), readings.count(store.engine, study_id)
