"""The table of a finished study, as Markdown: teacher, front, controls beside distilled students.

    KDSEARCH_HOME=... .venv/bin/python benchmarks/results.py STUDY

Intervals are 95 %, by bootstrap over rows. Exports the students it shows to a temporary folder, each of
which is one reading of the test pool (counted by the study), and asks the teacher on the test pool once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kdsearch.core.blobs import get_tree
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import TokenPool
from kdsearch.export.bundle import export_student
from kdsearch.export.manifest import Manifest
from kdsearch.measure.quality import bootstrap_interval, paired_bootstrap, score
from kdsearch.store import reads
from kdsearch.store.connect import Store, open_store
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.store.statefolder import resolve_home
from kdsearch.teachers import source
from kdsearch.teachers.signals import compute_logits

FloatArray = npt.NDArray[np.float32]
SEED = 17


def percent(value: float, interval: Iterable[float] = ()) -> str:
    """``96.7 (93.0 to 99.2)``."""
    bounds = " to ".join(f"{100 * bound:.1f}" for bound in interval)
    return f"{100 * value:.1f}" + (f" ({bounds})" if bounds else "")


@dataclass(frozen=True)
class Report:
    """A study and what its figures are computed from."""

    store: Store
    study: StudyRow
    prepared: Prepared
    validation: TokenPool

    def logits(self, trial: TrialRow) -> FloatArray:
        """Of a trial on the validation pool."""
        stored: FloatArray = np.load(self.store.blobs.open(str(trial.validation_logits)))
        return stored

    @property
    def teacher_logits(self) -> FloatArray:
        """On the validation pool."""
        stored: FloatArray = np.load(self.store.blobs.open(str(self.prepared.pools["validation"].logits)))
        return stored

    def difference(self, first_NC: FloatArray, second_NC: FloatArray) -> str:
        """First minus second on the same rows, in points."""
        found = paired_bootstrap(
            first_NC,
            second_NC,
            self.validation.labels_N,
            labels=self.prepared.labels,
            objective=self.study.quality_name,
            seed=SEED,
        )
        return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"

    def quality(self, logits_NC: FloatArray, pool: TokenPool) -> str:
        """The objective with its interval."""
        labels, objective = self.prepared.labels, self.study.quality_name
        found = score(logits_NC, pool.labels_N, labels=labels, objective=objective)
        interval = bootstrap_interval(logits_NC, pool.labels_N, labels=labels, objective=objective, seed=SEED)
        return percent(found.quality, interval)

    def teacher_on_test(self) -> str:
        """The teacher's quality on the test pool, computed now."""
        pool = TokenPool.load(self.store.blobs.open(self.prepared.pools["test"].tokens))
        with tempfile.TemporaryDirectory() as folder:
            tree = get_tree(self.store.blobs, str(self.prepared.teacher), Path(folder))
            module = source.load_classifier(tree, self.prepared.labels)
        logits_NC = compute_logits(
            module, pool, pad_id=self.prepared.pad_id, device="cpu", breathe=lambda: None
        )
        return self.quality(logits_NC, pool)

    def exported(self, trial: TrialRow) -> Manifest:
        """Export the trial, which proves it and reads the test pool once."""
        with tempfile.TemporaryDirectory() as folder:
            return export_student(self.store, self.study, trial, to=Path(folder) / "student")


def row_of(report: Report, trial: TrialRow) -> list[str]:
    """One student: validation, difference to the teacher, test, latency."""
    manifest, teacher = report.exported(trial), report.study.teacher
    logits_NC, test = report.logits(trial), manifest.metrics.test
    assert trial.latency is not None and teacher is not None and teacher.latency is not None
    return [
        f"{trial.student} / {trial.scheme} ({trial.number})",
        report.quality(logits_NC, report.validation),
        report.difference(logits_NC, report.teacher_logits),
        percent(test.scores.quality, test.interval) if test else "–",
        f"{trial.latency.p50_ms:.3f} / {trial.latency.p90_ms:.3f} / {trial.latency.p99_ms:.3f}",
        f"{teacher.latency.p90_ms / trial.latency.p90_ms:.0f}×",
        f"{trial.latency.size_mb:.2f}",
    ]


def teacher_row(report: Report) -> list[str]:
    """The teacher under the same protocol."""
    teacher = report.study.teacher
    assert teacher is not None and teacher.latency is not None
    latency = teacher.latency
    return [
        "teacher",
        report.quality(report.teacher_logits, report.validation),
        "",
        report.teacher_on_test(),
        f"{latency.p50_ms:.3f} / {latency.p90_ms:.3f} / {latency.p99_ms:.3f}",
        "1×",
        f"{latency.size_mb:.2f}",
    ]


def best_of(trials: list[TrialRow], student: str, *, control: bool) -> tuple[TrialRow, int]:
    """The best trial of a student among the controls, or among the distilled, and how many there were."""
    own = [t for t in trials if t.student == student and (t.scheme == "none") == control]
    return max(own, key=lambda t: (t.quality or 0.0, -(t.latency_ms or 0.0))), len(own)


def control_rows(report: Report, trials: list[TrialRow]) -> list[list[str]]:
    """For each student the best control, the best distilled, and the difference."""
    rows = []
    for student in dict.fromkeys(t.student for t in trials):
        control, num_controls = best_of(trials, student, control=True)
        distilled, num_distilled = best_of(trials, student, control=False)
        rows.append(
            [
                student,
                f"{percent(control.quality or 0)} (trial {control.number}, best of {num_controls})",
                f"{percent(distilled.quality or 0)} (trial {distilled.number}, best of {num_distilled})",
                report.difference(report.logits(distilled), report.logits(control)),
            ]
        )
    return rows


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def shown(trials: list[TrialRow], front: list[TrialRow]) -> list[TrialRow]:
    """The front, then the best distilled and the best control of each student."""
    kept = {t.number: t for t in front}
    for student in dict.fromkeys(t.student for t in trials):
        for control in (False, True):
            best, _ = best_of(trials, student, control=control)
            kept.setdefault(best.number, best)
    return list(kept.values())


def print_report(report: Report) -> None:
    """All tables to standard output."""
    trials = [t for t in reads.trials(report.store.engine, report.study.id) if t.state == "complete"]
    front = reads.front(trials, within_ms=None)
    quality = report.study.quality_name
    header = [
        "model",
        f"{quality} validation, %",
        "minus teacher",
        "test, %",
        "p50 / p90 / p99 ms",
        "faster",
        "MB",
    ]
    rows = [teacher_row(report), *(row_of(report, trial) for trial in shown(trials, front))]
    members = ", ".join(str(t.number) for t in front)
    print(f"On the front: trial {members}. Trials complete: {len(trials)}.\n")
    print(table(header, rows) + "\n")
    print(table(["student", "best control", "best distilled", "difference"], control_rows(report, trials)))


def main() -> None:
    """Read the study's name from the command line."""
    storage = os.environ.get("KDSEARCH_STORAGE")
    artifacts = os.environ.get("KDSEARCH_ARTIFACTS")
    with open_store(storage, artifacts, home=resolve_home(os.environ)) as store:
        study = reads.study(store.engine, sys.argv[1])
        prepared = Prepared.load(store.blobs, str(study.prepared))
        validation = TokenPool.load(store.blobs.open(prepared.pools["validation"].tokens))
        print_report(Report(store, study, prepared, validation))


if __name__ == "__main__":
    main()
