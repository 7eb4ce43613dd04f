"""SST-2: what distilling gives a BiLSTM over a control that was tuned as long and saw as many rows.

    export KDSEARCH_DATA=... KDSEARCH_TEACHER=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.sst2_gain [--seeds 1 2 3 4 5] [--stronger ROWS] [--texts ROWS]

From studies/sst2.yaml a study is derived for MSE and one for KL, in each of which control and distilled are
tuned by random search. The best of as many trials on either side are then repeated with every seed, against
the one teacher, and compared pair by pair. The test pool is read at the end, once for each repeat.
Two options ask what limits the gain, each with the repeats of MSE once more: `--stronger` takes a teacher
that was fine-tuned on so many labels, on the same texts; `--texts` takes the same teacher, on the labelled
and so many further texts in place of the augmented ones, with as many rows seen.
Cut off, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arms import (
    Bench,
    Outcome,
    Spec,
    arguments,
    bench,
    changed,
    derived,
    fixed,
    load_spec,
    repeated,
    shrunk,
    table,
    write_report,
    write_study,
)
from benchmarks.intervals import Estimate, difference, over_seeds
from kdsearch.cli.answers import params_text
from kdsearch.core.errors import DataError
from kdsearch.core.studyfile import read_study
from kdsearch.data.readers import read_rows

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


def named(teacher: Path) -> dict[str, Any]:
    """What makes a study take this fine-tuned teacher as it is."""
    return {"teacher.model": str(teacher), "teacher.build": None, "teacher.finetune": None}


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
    teacher = named(tuning.teacher_folder(bench_.folder / "teacher"))
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
    best = arm.tuning.best(STUDENT, "offline", first=arm.num_tuned)
    return [bench_.finished(repeated(base, best, f"mse-of-{rows}", seed, named(folder))) for seed in seeds]


def run_texts(bench_: Bench, base: Spec, arm: Arm, rows: int, seeds: Sequence[int]) -> list[Outcome]:
    """The distilled of an arm with their controls, by seed, with further texts in place of augmented ones."""
    file = further_texts(base, bench_.folder, rows)
    best = arm.tuning.best(STUDENT, "offline", first=arm.num_tuned)
    scheme = {**fixed(best.params, "offline"), "pools": "train+unlabelled"}
    changes = {
        **named(arm.tuning.teacher_folder(bench_.folder / "teacher")),
        "data.augmented": None,
        "data.unlabelled": str(file),
        "schemes": [{"type": "none"}, scheme],
    }
    return [bench_.finished(repeated(base, best, f"mse-on-{rows}", seed, changes)) for seed in seeds]


def further_texts(base: Spec, folder: Path, rows: int) -> Path:
    """The texts that follow the labelled ones in their file, without labels."""
    data = read_study(write_study(base, folder / "base.yaml"), env=os.environ).spec.data
    limit = data.train.limit or 0
    more = data.train.model_copy(update={"limit": limit + rows})
    texts = read_rows(more, base=folder, text=data.text, label=None, split="train").texts[limit:]
    if len(texts) < rows:
        raise DataError(f"{data.train.path} has only {len(texts)} further texts", hint="--texts takes fewer")
    known = set(read_rows(data.train, base=folder, text=data.text, label=None, split="train").texts)
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts if text not in known]
    file = folder / f"further-{rows}.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


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


def report_other(arm: Arm, distilled: list[Outcome], name: str) -> Iterator[str]:
    """Another teacher or other texts, what that gives, and how much more that is."""
    own = arm._replace(distilled=distilled)
    teacher = distilled[0].report(test=True)[0]
    test = "" if teacher.test is None else f", {100 * teacher.test.quality:.1f} % on test"
    yield f"With {name} (teacher: {100 * teacher.scores.quality:.1f} % on validation{test}):"
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
        "its mse minus mse before": more,
    }
    lines = [[name, found.points(), found.verdict] for name, found in estimates.items()]
    yield table(["difference", "points", "better?"], lines)
    lines = [
        line(f"offline, mse, {name}", distilled, "offline"),
        line("none, its parameters", distilled, "none"),
    ]
    yield table(header_of(one), lines)


def header_of(outcome: Outcome) -> list[str]:
    """Of the tables of students."""
    return ["student", "parameters", f"{outcome.study.quality_name} validation, %", "test, %", "rows seen"]


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
    tuning = next(iter(found.values())).tuning
    yield table(header_of(tuning), lines)
    teacher = tuning.report(test=True)[0]
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
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--stronger", type=int, metavar="ROWS", help="labels of a better teacher")
    parser.add_argument("--texts", type=int, metavar="ROWS", help="further texts without labels")
    options = parser.parse_args()
    if (options.stronger or options.texts) and "mse" not in options.losses:
        parser.error("--stronger and --texts repeat MSE; let --losses hold mse")
    base = prepare(options)
    with bench("sst2_gain", options) as bench_:
        found = {loss: run_arm(bench_, base, loss, options.seeds) for loss in options.losses}
        parts = list(report(found))
        others = {
            "stronger": (run_stronger, "a teacher of {:,} labels"),
            "texts": (run_texts, "{:,} further texts in place of augmented ones"),
        }
        for option, (run, name) in others.items():
            if rows := getattr(options, option):
                distilled = run(bench_, base, found["mse"], rows, options.seeds)
                parts += report_other(found["mse"], distilled, name.format(rows))
        write_report(parts, options.out)


if __name__ == "__main__":
    main()
