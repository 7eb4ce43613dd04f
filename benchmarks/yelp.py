"""The third article's table: few labels, many texts. Does a distilled small BERT beat the fine-tuned one?

    export KDSEARCH_DATA=... KDSEARCH_TEACHER=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.yelp [--seeds 1 2 3] [--out FILE.md]

From studies/yelp.yaml three studies are derived for each seed: the small BERT (every second layer of the
teacher) fine-tuned on 1,500 labels and on 3,000, of which the 1,500 are the first half, 20 passes each; and
distilled on the 1,500 and all unlabelled texts, beside a control that sees as many rows as it does.
The test pool is read at the end, once for each student shown. Cut off, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

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
    shrunk,
    table,
    write_report,
)
from benchmarks.intervals import Estimate, difference, over_seeds
from kdsearch.cli.report import duration
from kdsearch.export.report import ReportRow

STUDENT = "bert_small"
PASSES = 20
NONE: list[dict[str, Any]] = [{"type": "none"}]
OFFLINE = {"type": "offline", "loss": "kl", "temperature": 1.0, "lambda": 1.0, "pools": "train+unlabelled"}


class Arms(NamedTuple):
    """Outcomes by seed."""

    few: list[Outcome]
    twice: list[Outcome]
    distilled: list[Outcome]


def tuned(rows: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning the student on so many labels, scored ten times."""
    own = {"data.train.limit": rows, "schemes": NONE, "budget.trials": 1}
    return {**own, "training.epochs": 10, "training.rows_per_epoch": rows * PASSES // 10, **changes}


def run_all(bench_: Bench, base: Spec, seeds: Sequence[int], rows: int) -> Arms:
    """Seed by seed."""
    found = Arms([], [], [])
    every = base["students"][0]["every"]
    student = {
        "type": STUDENT,
        "init": "teacher",
        "every": every[0] if isinstance(every, list) else every,
        "dropout": 0.1,
    }
    for seed in seeds:
        same = {"students": [student], "training.learning_rate": 1e-4, "training.seed": seed}
        few = derived(base, f"few-{seed}", tuned(rows, same))
        # The unlabelled texts stay: they decide which of the teacher's word pieces a student keeps.
        twice = derived(base, f"double-{seed}", tuned(2 * rows, same))
        both = {**same, "data.train.limit": rows, "schemes": [*NONE, OFFLINE], "budget.trials": 2}
        found.few.append(bench_.finished(few))
        found.twice.append(bench_.finished(twice))
        found.distilled.append(bench_.finished(derived(base, f"distilled-{seed}", both)))
    return found


def logits(outcomes: Sequence[Outcome], scheme: str) -> list[FloatArray]:
    """Of the students on the validation pool, by seed."""
    return [outcome.logits(outcome.only(STUDENT, scheme)) for outcome in outcomes]


def line(name: str, procedure: str, rows: Sequence[ReportRow]) -> list[str]:
    """The article's columns: one model, over its seeds."""
    one = rows[0]
    labels = f"{one.labelled or 0} labels"
    size = f"{labels}, {one.soft_labelled} soft labels" if one.soft_labelled else labels
    tests = [row.test.accuracy for row in rows if row.test is not None]
    speeds = [row.samples_per_s for row in rows if row.samples_per_s is not None]
    return [
        name,
        procedure,
        size,
        str(one.rows_seen or ""),
        duration(float(np.mean([row.train_seconds or 0 for row in rows]))),
        over_seeds([row.scores.accuracy for row in rows]).percent(),
        over_seeds(tests).percent() if tests else "",
        f"{np.mean(speeds):.1f}" if speeds else "",
        f"{one.size_mb:.1f}" if one.size_mb else "",
    ]


HEADER = [
    "model",
    "training procedure",
    "sample size",
    "rows seen",
    "training time",
    "accuracy validation, %",
    "accuracy test, %",
    "inference samples/s",
    "MB",
]


def lines(found: Arms) -> Iterator[list[str]]:
    """Every model of the article."""
    reports = [[outcome.report(test=True) for outcome in outcomes] for outcomes in found]
    few, twice, distilled = reports

    def pick(rows: list[list[ReportRow]], model: str, scheme: str | None = None) -> list[ReportRow]:
        named = "labels alone" if scheme == "none" else scheme
        return [next(r for r in own if r.model == model and named in (None, r.procedure)) for own in rows]

    yield line("teacher (MiniLM)", "fine-tuned", pick(distilled, "teacher"))
    yield line("teacher (MiniLM)", "fine-tuned", pick(twice, "teacher"))
    yield line("small BERT", f"fine-tuned, {PASSES} passes", pick(few, STUDENT, "none"))
    yield line("small BERT", f"fine-tuned, {PASSES} passes", pick(twice, STUDENT, "none"))
    yield line("small BERT", "fine-tuned, as many rows seen", pick(distilled, STUDENT, "none"))
    yield line("small BERT", "distilled on unlabelled texts", pick(distilled, STUDENT, "offline"))


def claims(found: Arms) -> Iterator[list[str]]:
    """Differences on the validation pool, paired over seeds and rows."""
    one = found.distilled[0]
    own = logits(found.distilled, "offline")

    def minus(other: Sequence[FloatArray]) -> Estimate:
        objective = one.study.quality_name
        return difference(own, other, one.labels_N, labels=one.prepared.labels, objective=objective)

    for text, other in (
        ("better than fine-tuned, as many rows seen", logits(found.distilled, "none")),
        (f"better than fine-tuned, {PASSES} passes", logits(found.few, "none")),
        ("better than fine-tuned on twice the labels", logits(found.twice, "none")),
        ("better than its own teacher", [outcome.teacher_logits for outcome in found.distilled]),
    ):
        estimate = minus(other)
        yield [f"distilled {text}", estimate.points(), estimate.verdict]


def report(found: Arms) -> Iterator[str]:
    """Both tables."""
    yield table(["claim", "difference, points", "does it hold?"], claims(found))
    yield table(HEADER, lines(found))


def prepare(options: argparse.Namespace) -> tuple[Spec, int]:
    """The base study, and how many labels are few."""
    base = changed(load_spec("yelp"), options)
    return (shrunk(base), 100) if options.small else (base, int(base["data"]["train"]["limit"]))


def main() -> None:
    """Run what is missing, then print."""
    options = arguments(__doc__, seeds=(1, 2, 3)).parse_args()
    base, rows = prepare(options)
    with bench("yelp", options) as bench_:
        write_report(report(run_all(bench_, base, options.seeds, rows)), options.out)


if __name__ == "__main__":
    main()
