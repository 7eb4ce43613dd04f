"""A study as a table, as articles print it: its teachers, and each student under each scheme.

Everything is read from what the study stored; only the test pool, where it is asked for, needs torch.
Letters: N rows, K historical teachers, C classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.core.records import Scores
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import TokenPool
from kdsearch.measure.quality import PERCENTILES, Difference, bootstrap_interval, resampled, score
from kdsearch.measure.standing import of_drawn_seeds
from kdsearch.store import readings, reads
from kdsearch.store.connect import Store
from kdsearch.store.reads import StudyRow, TrialRow

FloatArray = npt.NDArray[np.float32]
Interval = tuple[float, float]
CONTROL = "none"
"""The scheme that gains are counted from."""
SEED = 17
"""Of every bootstrap."""
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class OnTest:
    """What a model reaches on the test pool."""

    quality: float
    interval: Interval
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """One model. Quality is the study's objective on the validation pool; intervals are 95 %."""

    model: str
    procedure: str
    """How it was trained, in words."""
    trial: int | None = None
    tried: int | None = None
    """Complete trials of this student and scheme, of which this one is the best."""
    labelled: int | None = None
    """Rows whose hard label it learned from."""
    soft_labelled: int | None = None
    """Rows that a teacher labelled for it."""
    rows_seen: int | None = None
    train_seconds: float | None = None
    scores: Scores
    seeds: int = 1
    """Trainings with different seeds."""
    mean: float | None = None
    """Quality over the seeds where there are several; else `scores` say it."""
    interval: Interval | None = None
    """Of the quality, over rows and seeds; None where nobody kept the logits."""
    gain: Difference | None = None
    """Over the best control of the same student, on the same rows."""
    test: OnTest | None = None
    samples_per_s: float | None = None
    """One text after another."""
    size_mb: float | None = None
    teacher: Scores | None = None
    """Of the teacher that was trained beside it."""
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Material:
    """A study and the arrays that its figures come from."""

    store: Store
    study: StudyRow
    prepared: Prepared
    again: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Of each trial that was trained with further seeds, what those said on the validation pool."""

    @cached_property
    def validation(self) -> TokenPool:
        """The pool that everything is compared on."""
        return TokenPool.load(self.store.blobs.open(self.prepared.pools["validation"].tokens))

    @cached_property
    def num_labelled(self) -> int:
        """Training rows with a label."""
        train = TokenPool.load(self.store.blobs.open(self.prepared.pools["train"].tokens))
        return int((train.labels_N >= 0).sum())

    def array(self, sha256: str) -> FloatArray:
        """A stored ``.npy``."""
        stored: FloatArray = np.load(self.store.blobs.open(sha256), allow_pickle=False)
        return stored

    def interval(self, logits_NC: FloatArray, labels_N: npt.NDArray[np.int64]) -> Interval:
        """Of the study's objective."""
        labels, objective = self.prepared.labels, self.study.quality_name
        return bootstrap_interval(logits_NC, labels_N, labels=labels, objective=objective, seed=SEED)

    def every(self, trial: TrialRow) -> list[FloatArray]:
        """What a trial said on the validation pool, with each of its seeds."""
        stored = [str(trial.validation_logits), *self.again.get(trial.number, ())]
        return [self.array(sha256) for sha256 in stored]

    def gain(self, trial: TrialRow, control: TrialRow) -> Difference:
        """How much better a trial is than a control on the same validation rows, by means over seeds."""
        own, others = self._drawn(trial, control)
        low, high = np.percentile(own.draws - others.draws, PERCENTILES)
        return Difference(own.mean - others.mean, float(low), float(high))

    def quality(self, trial: TrialRow) -> tuple[float, Interval]:
        """Mean over the seeds of a trial, with its interval."""
        (own,) = self._drawn(trial)
        low, high = np.percentile(own.draws, PERCENTILES)
        return own.mean, (float(low), float(high))

    def _drawn(self, *trials: TrialRow) -> list[_Drawn]:
        labels, objective = self.prepared.labels, self.study.quality_name
        logits = [self.every(trial) for trial in trials]
        every = [one for of_trial in logits for one in of_trial]
        labels_N = self.validation.labels_N
        drawn = resampled(every, labels_N, labels=labels, objective=objective, seed=SEED, draws=DRAWS)
        scores = np.array([score(one, labels_N, labels=labels, objective=objective).quality for one in every])
        ends = np.cumsum([len(of_trial) for of_trial in logits])[:-1]
        return [
            _Drawn(float(own.mean()), of_drawn_seeds(values_SD, seed=(SEED, k)))
            for k, (own, values_SD) in enumerate(
                zip(np.split(scores, ends), np.split(drawn, ends), strict=True)
            )
        ]


@dataclass(frozen=True)
class _Drawn:
    """A trial's mean over its seeds, and what it was in every draw of rows and seeds."""

    mean: float
    draws: npt.NDArray[np.float64]


def report(
    store: Store,
    study: StudyRow,
    trials: Sequence[TrialRow],
    *,
    test: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[ReportRow]:
    """Every teacher, then of every student and scheme the best complete trial, controls first.

    With ``test`` each trial shown is exported to a place that is thrown away, which proves it and reads the
    test pool once, ever, for this trial. The study must have been prepared.
    """
    material = material_of(store, study)
    complete = [trial for trial in trials if trial.state == "complete"]
    read = test and "test" in material.prepared.pools
    return [
        *_teachers(material, read, on_progress),
        *(
            _trial(material, complete, best, read, on_progress)
            for best in best_trials(complete, set(material.again))
        ),
    ]


def material_of(store: Store, study: StudyRow) -> Material:
    """What is read of a study that was prepared."""
    store = store.of_study(study.artifacts_url)
    prepared = Prepared.load(store.blobs, str(study.prepared))
    return Material(store, study, prepared, _trained_again(store, study))


def _trained_again(store: Store, study: StudyRow) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for repeat in reads.repeats(store.engine, study.id):
        if repeat.state == "complete" and repeat.validation_logits is not None:
            found.setdefault(repeat.number, []).append(repeat.validation_logits)
    return found


def best_trials(complete: Sequence[TrialRow], again: Collection[int] = ()) -> list[TrialRow]:
    """Of each student under each scheme the best trial, of equals the faster; the control first.

    Those that were trained ``again`` with further seeds come before the others: of them more is known.
    """
    best: dict[tuple[str, str], TrialRow] = {}
    for trial in sorted(complete, key=lambda trial: (trial.number in again, _rank(trial))):
        best[trial.student, trial.scheme] = trial
    students = list(dict.fromkeys(trial.student for trial in complete))
    return sorted(best.values(), key=lambda t: (students.index(t.student), t.scheme != CONTROL, t.scheme))


def _rank(trial: TrialRow) -> tuple[float, float, int]:
    return trial.quality or 0.0, -(trial.latency_ms or 0.0), -trial.number


# ---------------------------------------------------------------- teachers


def _teachers(material: Material, test: bool, on_progress: Callable[[str], None]) -> Iterator[ReportRow]:
    study, prepared = material.study, material.prepared
    if study.teacher is not None:
        logits, latency = prepared.pools["validation"].logits, study.teacher.latency
        tuned = (study.spec["teacher"].get("finetune") or {}).get("epochs")
        yield ReportRow(
            model="teacher",
            procedure=_origin(study.spec["teacher"]),
            labelled=material.num_labelled if tuned else None,
            rows_seen=tuned * material.num_labelled if tuned else None,
            train_seconds=prepared.teacher_seconds,
            interval=None if logits is None else _of_validation(material, material.array(logits)),
            test=_teacher_on_test(material, on_progress) if test and prepared.teacher is not None else None,
            samples_per_s=None if latency is None else 1000 / latency.mean_ms,
            size_mb=study.teacher.size_mb,
            scores=study.teacher.scores,
        )
    yield from _historical(material)
    if prepared.trajectory is not None:
        yield ReportRow(
            model="teacher",
            procedure="recorded in training, for joint_isolated",
            labelled=material.num_labelled,
            rows_seen=study.spec["teacher"]["joint"]["epochs"] * material.num_labelled,
            train_seconds=prepared.trajectory.seconds,
            scores=prepared.trajectory.scores,
        )


def _historical(material: Material) -> Iterator[ReportRow]:
    stored = material.prepared.signals.get("historical", {}).get("validation")
    logits_NKC = None if stored is None else material.array(stored)
    for k, teacher in enumerate(material.prepared.historical):
        yield ReportRow(
            model="historical teacher",
            procedure=f"{teacher.name}, weight {teacher.weight:g}",
            interval=None if logits_NKC is None else _of_validation(material, logits_NKC[:, k]),
            scores=teacher.scores,
        )


def _of_validation(material: Material, logits_NC: FloatArray) -> Interval:
    return material.interval(logits_NC, material.validation.labels_N)


def _origin(spec: Mapping[str, Mapping[str, object] | None]) -> str:
    if spec.get("logits") is not None:
        return "its logits are given"
    steps = ["built"] if spec.get("build") is not None else []
    pretrain, tune = spec.get("pretrain"), spec.get("finetune")
    steps += [f"pretrained, epochs: {pretrain['epochs']}"] if pretrain is not None else []
    steps += [f"fine-tuned, epochs: {tune['epochs']}"] if tune is not None else []
    return ", ".join(steps) or "as given"


def _teacher_on_test(material: Material, on_progress: Callable[[str], None]) -> OnTest:
    """Computed now: the teacher takes no part in choosing, so that its readings are not counted."""
    from kdsearch.core.blobs import get_tree
    from kdsearch.teachers import source
    from kdsearch.teachers.signals import compute_logits

    on_progress("asking the teacher on the test pool")
    store, prepared = material.store, material.prepared
    pool = TokenPool.load(store.blobs.open(prepared.pools["test"].tokens))
    with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as folder:
        tree = get_tree(store.blobs, str(prepared.teacher), Path(folder))
        label_map = material.study.spec["teacher"].get("label_map")
        module = source.load_classifier(tree, prepared.labels, label_map=label_map)
    logits_NC = compute_logits(module, pool, pad_id=prepared.pad_id, device="cpu", breathe=lambda: None)
    objective = material.study.quality_name
    scores = score(logits_NC, pool.labels_N, labels=prepared.labels, objective=objective)
    interval = material.interval(logits_NC, pool.labels_N)
    return OnTest(quality=scores.quality, interval=interval, accuracy=scores.accuracy)


# ---------------------------------------------------------------- students


def _trial(
    material: Material,
    complete: Sequence[TrialRow],
    trial: TrialRow,
    test: bool,
    on_progress: Callable[[str], None],
) -> ReportRow:
    own = [other for other in complete if other.student == trial.student]
    controls = [other for other in own if other.scheme == CONTROL]
    control = next(iter(best_trials(controls, set(material.again))), None)
    labelled, soft_labelled = sample_size(trial, material)
    seeds = len(material.every(trial))
    mean, interval = material.quality(trial)
    assert trial.scores is not None
    return ReportRow(
        model=trial.student,
        procedure="labels alone" if trial.scheme == CONTROL else trial.scheme,
        trial=trial.number,
        tried=sum(other.scheme == trial.scheme for other in own),
        labelled=labelled,
        soft_labelled=soft_labelled,
        rows_seen=trial.rows_seen,
        train_seconds=trial.train_seconds,
        seeds=seeds,
        mean=mean if seeds > 1 else None,
        interval=interval,
        gain=None if control is None or trial.scheme == CONTROL else material.gain(trial, control),
        test=_on_test(material, trial, on_progress) if test else None,
        samples_per_s=None if trial.latency is None else 1000 / trial.latency.mean_ms,
        size_mb=trial.size_mb,
        teacher=trial.teacher,
        peak_memory_mb=trial.peak_memory_mb,
        scores=trial.scores,
    )


def sample_size(trial: TrialRow, material: Material) -> tuple[int, int]:
    """Rows that a student had hard labels of, and rows that a teacher labelled for it."""
    if trial.scheme == CONTROL:
        return material.num_labelled, 0
    own = trial.params.get(
        f"{trial.scheme}.lambda", 1.0
    )  # where it does not exist, the soft term stands alone
    pools = str(trial.params.get(f"{trial.scheme}.pools", "train")).split("+")
    soft_labelled = sum(material.prepared.pools[pool].num_rows for pool in pools)
    return (material.num_labelled if float(str(own)) < 1 else 0), soft_labelled


def _on_test(material: Material, trial: TrialRow, on_progress: Callable[[str], None]) -> OnTest:
    from kdsearch.export.bundle import export_student
    from kdsearch.export.manifest import Evaluation

    store, study = material.store, material.study
    recorded = readings.find(store.engine, study.id, trial.number)
    if recorded is None:
        on_progress(f"reading the test pool for trial {trial.number}")
        with tempfile.TemporaryDirectory(prefix="kdsearch-report-") as folder:
            export_student(store, study, trial, to=Path(folder) / "student")
        recorded = readings.find(store.engine, study.id, trial.number)
    assert recorded is not None, "an export reads the test pool where there is one"
    found = Evaluation.from_json(recorded)
    return OnTest(quality=found.scores.quality, interval=found.interval, accuracy=found.scores.accuracy)
