"""TNEWS: the second article's students on its five classes and on all fifteen, from two kinds of teacher.

    export KDSEARCH_DATA=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.tnews [--seeds 1 2 3] [--out FILE.md]

From studies/tnews_five.yaml and studies/tnews.yaml studies are derived: of each student alone, distilled
from the teacher built and pretrained here, and from a classical ensemble (benchmarks/classical.py), whose
logits are given by text. Each has as many trials to tune it (3 unless `--set budget.trials=` says so),
and the best of them is repeated with every seed; beside a distilled one, the control with its parameters.
Seconds are those of the whole test set on one CPU thread in batches of 64, without tokenising. The test pool
is read at the end, once for each repeat. Cut off, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.arms import (
    Bench,
    FloatArray,
    Outcome,
    Spec,
    arguments,
    bench,
    changed,
    derived,
    load_spec,
    repeated,
    shrunk,
    table,
    write_report,
    write_study,
)
from benchmarks.classical import accuracy, make_logits
from benchmarks.intervals import Estimate, difference, over_seeds
from kdsearch.core.blobs import get_tree
from kdsearch.data.tokens import TokenPool
from kdsearch.export.verify import pool_logits, student_run
from kdsearch.store.reads import TrialRow
from kdsearch.students.building import load_student
from kdsearch.teachers import given, source
from kdsearch.teachers.signals import compute_logits, lookup

STUDENTS = ("bilstm", "textcnn")
TEACHERS = ("built", "classical")
TITLES = {"tnews_five": "five classes, down-sampled", "tnews": "all fifteen classes"}


@dataclass(frozen=True)
class Repeats:
    """One student under one teacher, by seed."""

    controls: list[Outcome]
    distilled: list[Outcome]


@dataclass(frozen=True)
class Setting:
    """One data set with everything that was run on it."""

    folder: Path
    """Of the classical models' logits."""
    tuning: dict[str, Outcome]
    """One study with each teacher."""
    repeats: dict[tuple[str, str], Repeats]
    """By teacher and student."""

    @cached_property
    def classical(self) -> dict[str, dict[str, float]]:
        """What is known of the classical models."""
        known: dict[str, dict[str, float]] = json.loads((self.folder / "classical.json").read_text())
        return known

    def gain(self, teacher: str, student: str, *, same: bool = False) -> Estimate:
        """Distilled minus the control that was tuned alike, or minus that with its own parameters."""
        own, one = self.repeats[teacher, student], self.repeats[teacher, student].distilled[0]
        controls = own.distilled if same else own.controls
        return difference(
            [outcome.logits(outcome.only(student, "offline")) for outcome in own.distilled],
            [outcome.logits(outcome.only(student, "none")) for outcome in controls],
            one.labels_N,
            labels=one.prepared.labels,
            objective=one.study.quality_name,
        )


# ---------------------------------------------------------------- running


def run_setting(bench_: Bench, base: Spec, name: str, seeds: Sequence[int]) -> Setting:
    """Everything of one data set."""
    file = write_study(base, bench_.folder / f"{name}-classical-data.yaml")
    folder = bench_.folder / f"{name}-classical"
    make_logits(file, folder)
    first = bench_.finished(arm(base, "built", STUDENTS[0], "none", {}))
    tree = first.teacher_folder(bench_.folder / f"{name}-teacher")
    without: Spec = {"teacher.pretrain": None, "teacher.finetune": None}
    changes = {
        "built": {"teacher.model": str(tree), "teacher.build": None, **without},
        "classical": {"teacher.logits": str(folder / "ensemble.npz"), **without},
    }
    found = Setting(folder, {"built": first}, {})

    def repeats(tuned: Outcome, teacher: str, student: str, scheme: str) -> list[Outcome]:
        best = tuned.best(student, scheme, first=base["budget"]["trials"])
        name_ = f"{teacher}-{student}-{scheme}"
        return [bench_.finished(repeated(base, best, name_, seed, changes[teacher])) for seed in seeds]

    for student in STUDENTS:  # a control learns nothing from its teacher: one serves for all
        alone = first
        if student != STUDENTS[0]:
            alone = bench_.finished(arm(base, "built", student, "none", changes["built"]))
        controls = repeats(alone, "built", student, "none")
        for teacher in TEACHERS:
            tuned = bench_.finished(arm(base, teacher, student, "offline", changes[teacher]))
            found.tuning.setdefault(teacher, tuned)
            found.repeats[teacher, student] = Repeats(controls, repeats(tuned, teacher, student, "offline"))
    return found


def arm(base: Spec, teacher: str, student: str, scheme: str, changes: Spec) -> Spec:
    """The study that tunes one student under one scheme, with as many trials whichever it is."""
    own: Spec = {
        "students": [one for one in base["students"] if one["type"] == student],
        "schemes": [
            one for one in base["schemes"] if scheme == (one if isinstance(one, str) else one["type"])
        ],
    }
    if scheme != "none":
        # a study has its control in every round of first trials; these are half of the trials, and all epochs
        trials = base["budget"]["trials"]
        own |= {"budget.trials": 4 * trials, "budget.epochs": 2 * trials * base["training"]["epochs"]}
    return derived(base, f"{teacher}-{student}-{scheme}", {**own, **changes})


# ---------------------------------------------------------------- figures


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one thread, the best of three."""
    torch.set_num_threads(1)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def student_seconds(outcome: Outcome, trial: TrialRow, folder: Path) -> float:
    """Of the whole test pool."""
    blobs, prepared = outcome.store.blobs, outcome.prepared
    tree = folder / str(trial.artifact)
    if not tree.exists():
        get_tree(blobs, str(trial.artifact), tree)
    vocabulary = prepared.vocabulary(str(trial.params.get(f"{trial.student}.vocabulary", "teacher")))
    pool = TokenPool.load(blobs.open(vocabulary.tokens["test"]))
    run = student_run(load_student(tree).student)
    num_labels = len(prepared.labels)
    return seconds(lambda: pool_logits(run, pool, num_labels=num_labels, pad_id=vocabulary.pad_id))


def teacher_seconds(outcome: Outcome, folder: Path) -> float:
    """Of the whole test pool."""
    module = source.load_classifier(outcome.teacher_folder(folder), outcome.prepared.labels)
    pool, pad_id = outcome.pool("test"), outcome.prepared.pad_id
    return seconds(lambda: compute_logits(module, pool, pad_id=pad_id, device="cpu", breathe=lambda: None))


def classical_line(setting: Setting, name: str, file: str) -> list[str]:
    """Naive Bayes or the ensemble: one model, no seeds; its seconds include cutting texts into n-grams."""
    outcome = setting.tuning["classical"]
    shard = given.read_logits(setting.folder / f"{file}.npz", outcome.prepared.labels)
    pools = [outcome.pool("validation"), outcome.pool("test")]
    found: list[FloatArray] = [lookup([shard], pool)[0] for pool in pools]
    shares = [f"{100 * accuracy(f, pool.labels_N):.1f}" for f, pool in zip(found, pools, strict=True)]
    took = setting.classical[file]["test_seconds"]
    return [name, shares[0], "", "", shares[1], f"{took:.2f} (texts included)", "", ""]


def teacher_line(setting: Setting, took: float) -> list[str]:
    """The teacher built here."""
    row = setting.tuning["built"].report(test=True)[0]
    test = "" if row.test is None else f"{100 * row.test.accuracy:.1f}"
    size = "" if row.size_mb is None else f"{row.size_mb:.1f}"
    return ["teacher built here", f"{100 * row.scores.accuracy:.1f}", "", "", test, f"{took:.2f}", "1×", size]


def student_line(setting: Setting, teacher: str, student: str, scheme: str, slow: float) -> list[str]:
    """One student over its seeds."""
    own = setting.repeats[teacher, student]
    outcomes = own.controls if scheme == "none" else own.distilled
    trials = [outcome.only(student, scheme) for outcome in outcomes]
    tests = [
        row.test.accuracy
        for outcome, trial in zip(outcomes, trials, strict=True)
        for row in outcome.report(test=True)
        if row.trial == trial.number and row.test is not None
    ]
    took = student_seconds(outcomes[0], trials[0], setting.folder)
    name = "alone" if scheme == "none" else f"distilled from the {teacher} teacher"
    return [
        f"{student} {name}",
        over_seeds([t.scores.accuracy for t in trials if t.scores is not None]).percent(),
        "" if scheme == "none" else setting.gain(teacher, student).points(),
        "" if scheme == "none" else setting.gain(teacher, student, same=True).points(),
        over_seeds(tests).percent() if tests else "",
        f"{took:.2f}",
        f"{slow / took:.0f}×" if slow >= 10 * took else f"{slow / took:.1f}×",
        f"{trials[0].size_mb or 0:.2f}",
    ]


def report(setting: Setting, title: str) -> Iterator[str]:
    """The table of one data set."""
    slow = teacher_seconds(setting.tuning["built"], setting.folder / "teacher")
    lines = [
        classical_line(setting, "naive Bayes, character n-grams", "naive_bayes"),
        classical_line(setting, "classical ensemble", "ensemble"),
        teacher_line(setting, slow),
    ]
    for student in STUDENTS:
        lines.append(student_line(setting, "built", student, "none", slow))
        lines += [student_line(setting, teacher, student, "offline", slow) for teacher in TEACHERS]
    header = [
        "model",
        "accuracy validation, %",
        "minus alone, points",
        "minus own control, points",
        "test, %",
        "test set, CPU s",
        "faster",
        "MB",
    ]
    outcome = setting.tuning["built"]
    yield f"## {title.capitalize()}"
    yield f"{len(outcome.pool('train'))} / {len(outcome.labels_N)} / {len(outcome.pool('test'))} titles."
    shares = ", ".join(f"{table_} {share:.1%}" for table_, share in outcome.prepared.oov_share.items())
    yield f"Share of the running tokens without a vector: {shares or 'no vectors'}."
    yield table(header, lines)
    claims = [
        [f"{student} distilled from the {teacher} teacher better than alone", gain.points(), gain.verdict]
        for teacher in TEACHERS
        for student in STUDENTS
        for gain in (setting.gain(teacher, student),)
    ]
    yield table(["claim", "difference, points", "does it hold?"], claims)


def prepare(name: str, options: argparse.Namespace) -> Spec:
    """The base study of a data set."""
    base = changed(derived(load_spec(name), "arms", {"budget.trials": 3}), options)
    if not options.small:
        return base
    rows = {f"data.{pool}.limit": 600 for pool in ("train", "validation", "test", "unlabelled")}
    return derived(shrunk(base), "run", {**rows, "training.rows_per_epoch": 600, "budget.trials": 2})


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments(__doc__, seeds=(1, 2, 3))
    parser.add_argument("--only", choices=sorted(TITLES), help="one of the two data sets")
    options = parser.parse_args()
    names = [name for name in TITLES if options.only in (None, name)]
    with bench("tnews", options) as bench_:
        parts: list[str] = []
        for name in names:
            setting = run_setting(bench_, prepare(name, options), name, options.seeds)
            parts += report(setting, TITLES[name])
        write_report(parts, options.out)


if __name__ == "__main__":
    main()
