"""SST-2: what distilling gives a BiLSTM over a control that was tuned as long and saw as many rows.

    export KDSEARCH_DATA=... KDSEARCH_TEACHER=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.sst2_gain [--seeds 1 2 3 4 5] [--stronger ROWS] [--out FILE.md]

From studies/sst2.yaml a study is derived for MSE and one for KL, in each of which control and distilled are
tuned by random search. The best of as many trials on either side are then repeated with every seed, against
the one teacher, and compared pair by pair. The test pool is read at the end, once for each repeat.
`--stronger` asks whether the teacher limits the gain: the repeats of MSE once more, on the same texts,
with a teacher that was fine-tuned on so many labels instead.
Cut off, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.arms import (
    Bench,
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
)
from benchmarks.intervals import Estimate, difference, over_seeds
from kdsearch.cli.answers import params_text

STUDENT = "bilstm"
LOSSES = ("mse", "kl")
SOFT: dict[str, dict[str, Any]] = {
    "mse": {"loss": "mse", "lambda": {"min": 0.5, "max": 1.0}},
    "kl": {
        "loss": "kl",
        "temperature": {"min": 1.0, "max": 8.0, "log": True},
        "lambda": {"min": 0.5, "max": 1.0},
    },
}


class Arm(NamedTuple):
    """One loss."""

    tuning: Outcome
    num_tuned: int
    """Trials of control and of distilled that the best were chosen of."""
    controls: list[Outcome]
    """By seed, with the control's best parameters."""
    distilled: list[Outcome]
    """By seed, with the best parameters of the distilled; a control with the same ones stands beside it."""


def tune(bench_: Bench, base: Spec, loss: str, number: int) -> Outcome:
    """Control and distilled by random search; the two losses draw differently."""
    scheme = {"type": "offline", **SOFT[loss], "pools": "train+augmented"}
    changes = {
        "schemes": [{"type": "none"}, scheme],
        "search": {"sampler": "random", "seed": 17 + number},
    }
    return bench_.finished(derived(base, f"tune-{loss}", changes))


def run_arm(bench_: Bench, base: Spec, loss: str, seeds: Sequence[int]) -> Arm:
    """Tune, then repeat."""
    tuning = tune(bench_, base, loss, LOSSES.index(loss))
    num_tuned = min(len(tuning.of(STUDENT, scheme)) for scheme in ("none", "offline"))
    folder = tuning.teacher_folder(bench_.folder / "teacher")
    teacher = {"teacher.model": str(folder), "teacher.build": None, "teacher.finetune": None}
    found = Arm(tuning, num_tuned, [], [])
    for seed in seeds:
        for scheme, outcomes in (("none", found.controls), ("offline", found.distilled)):
            best = tuning.best(STUDENT, scheme, first=num_tuned)
            outcomes.append(bench_.finished(repeated(base, best, f"{loss}-{scheme}", seed, teacher)))
    return found


def run_stronger(bench_: Bench, base: Spec, arm: Arm, rows: int, seeds: Sequence[int]) -> list[Outcome]:
    """The distilled of an arm with their controls, by seed, taught by a teacher that saw more labels."""
    one = {
        "data.train.limit": rows,
        "data.augmented": None,
        "data.test": None,
        "students": ["bag"],
        "schemes": [{"type": "none"}],
        "training.rows_per_epoch": 1000,
        "budget.trials": 1,
    }
    taught = bench_.finished(derived(base, f"teacher-{rows}", one))
    folder = taught.teacher_folder(bench_.folder / f"teacher-{rows}")
    teacher = {"teacher.model": str(folder), "teacher.build": None, "teacher.finetune": None}
    best = arm.tuning.best(STUDENT, "offline", first=arm.num_tuned)
    return [bench_.finished(repeated(base, best, f"mse-of-{rows}", seed, teacher)) for seed in seeds]


def gain(arm: Arm, other: str) -> Estimate:
    """Distilled minus the tuned control, or the control that has the parameters of the distilled."""
    controls = arm.controls if other == "tuned" else arm.distilled
    one = arm.distilled[0]
    return difference(
        [outcome.logits(outcome.only(STUDENT, "offline")) for outcome in arm.distilled],
        [outcome.logits(outcome.only(STUDENT, "none")) for outcome in controls],
        one.labels_N,
        labels=one.prepared.labels,
        objective=one.study.quality_name,
    )


def line(name: str, outcomes: Sequence[Outcome], scheme: str) -> list[str]:
    """One kind of student over its seeds."""
    trials = [outcome.only(STUDENT, scheme) for outcome in outcomes]
    rows = [
        row
        for outcome, trial in zip(outcomes, trials, strict=True)
        for row in outcome.report(test=True)
        if row.trial == trial.number
    ]
    tests = [row.test.quality for row in rows if row.test is not None]
    return [
        name,
        params_text(trials[0]),
        over_seeds([float(trial.quality or 0) for trial in trials]).percent(),
        over_seeds(tests).percent() if tests else "",
        str(trials[0].rows_seen),
    ]


def report_stronger(arm: Arm, distilled: list[Outcome], rows: int) -> Iterator[str]:
    """The other teacher, what it gives, and how much more that is."""
    own = arm._replace(distilled=distilled)
    teacher = distilled[0].report(test=True)[0]
    test = "" if teacher.test is None else f", {100 * teacher.test.quality:.1f} % on test"
    validation = f"{100 * teacher.scores.quality:.1f} % on validation"
    yield f"A teacher fine-tuned on {rows:,} labels: {validation}{test}. The same texts, taught by it:"
    one = distilled[0]
    more = difference(
        [outcome.logits(outcome.only(STUDENT, "offline")) for outcome in distilled],
        [outcome.logits(outcome.only(STUDENT, "offline")) for outcome in arm.distilled],
        one.labels_N,
        labels=one.prepared.labels,
        objective=one.study.quality_name,
    )
    estimates = {
        "its mse minus equally tuned control": gain(own, "tuned"),
        "its mse minus control with its parameters": gain(own, "same"),
        "its mse minus mse of the first teacher": more,
    }
    lines = [[name, found.points(), found.verdict] for name, found in estimates.items()]
    yield table(["difference", "points", "better?"], lines)
    header = ["student", "parameters", f"{one.study.quality_name} validation, %", "test, %", "rows seen"]
    yield table(header, [line(f"offline, mse, teacher of {rows:,} labels", distilled, "offline")])


def report(found: dict[str, Arm]) -> Iterator[str]:
    """Gains, students, teacher."""
    gains = []
    for loss, arm in found.items():
        for other, text in (("tuned", "equally tuned control"), ("same", "control with its parameters")):
            estimate = gain(arm, other)
            gains.append([f"{loss} minus {text}", estimate.points(), estimate.verdict])
    yield table(["difference", "points", "better?"], gains)
    lines = []
    for loss, arm in found.items():
        best_of = f"best of {arm.num_tuned}"
        lines.append(line(f"none ({loss}'s, {best_of})", arm.controls, "none"))
        lines.append(line(f"offline, {loss} ({best_of})", arm.distilled, "offline"))
        lines.append(line(f"none, parameters of offline, {loss}", arm.distilled, "none"))
    quality = found["mse"].tuning.study.quality_name
    yield table(["student", "parameters", f"{quality} validation, %", "test, %", "rows seen"], lines)
    teacher = found["mse"].tuning.report(test=True)[0]
    test = "" if teacher.test is None else f", {100 * teacher.test.quality:.1f} % on test"
    yield f"Teacher: {100 * teacher.scores.quality:.1f} % on validation{test}."


def prepare(options: argparse.Namespace) -> Spec:
    """The base study."""
    base = changed(load_spec("sst2"), options)
    if not options.small:
        return base
    return derived(shrunk(base), "run", {"training.rows_per_epoch": 600, "budget.trials": 4})


def main() -> None:
    """Run what is missing, then print."""
    parser = arguments(__doc__, seeds=(1, 2, 3, 4, 5))
    parser.add_argument("--stronger", type=int, metavar="ROWS", help="labels of a better teacher")
    options = parser.parse_args()
    base = prepare(options)
    with bench("sst2_gain", options) as bench_:
        found = {loss: run_arm(bench_, base, loss, options.seeds) for loss in LOSSES}
        parts = list(report(found))
        if options.stronger:
            rows, arm = options.stronger, found["mse"]
            parts += report_stronger(arm, run_stronger(bench_, base, arm, rows, options.seeds), rows)
        write_report(parts, options.out)


if __name__ == "__main__":
    main()
