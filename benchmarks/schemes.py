"""Every scheme with every student on little data: what distilling is worth, and the first article's findings.

    export KDSEARCH_DATA=... KDSEARCH_TEACHER=... KDSEARCH_HOME=...
    .venv/bin/python -m benchmarks.schemes [--seeds 1 2 3] [--out FILE.md]

From studies/spam_opinions.yaml one study is derived for each student and seed, with every parameter fixed to
a textbook's value, so that each scheme is tried once. Beside them stand arms for the article's own student:
one summed loss with its clip and its rates taken apart, ProKT, and a fifth of the training labels wrong.
About an hour on two cores; cut off, the same command goes on. Intervals are 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arms import (
    Bench,
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
from kdsearch.store.reads import TrialRow

SOFT = {"temperature": 4.0, "lambda": 0.5}
KL = {"loss": "kl", **SOFT}
SUM = {"type": "joint_sum", **SOFT, "clip": "global", "rates": "shared", "learning_rate": 5e-5}
SUM_OWN_RATES = {"type": "joint_sum", **SOFT, "rates": "own"}
SCHEMES: tuple[dict[str, Any], ...] = (
    {"type": "none"},
    {"type": "offline", **KL, "pools": "train"},
    {"type": "joint_isolated", **KL},
    {"type": "joint_mutual", "variant": "mutual", **SOFT, "mu": 1.0},
    SUM,
    {"type": "multi_teacher", **KL, "pools": "train"},
    {"type": "hint", "hint_epochs": 1, "layer": 3, **KL, "pools": "train"},
    {"type": "route", **KL, "pools": "train"},
)
STUDENTS: dict[str, tuple[dict[str, Any], float]] = {
    "textcnn": (
        {
            "embedding": "teacher",
            "channels": "non-static",
            "filters": 128,
            "kernel_sizes": [[3, 4, 5]],
            "dropout": 0.3,
        },
        1e-3,
    ),
    "bilstm": (
        {"embedding": "teacher", "channels": "non-static", "hidden": 128, "pooling": "max", "dropout": 0.3},
        1e-3,
    ),
    "bert_small": ({"init": "teacher", "every": 2, "dropout": 0.1}, 1e-4),
}
"""With the learning rate of each: layers that were trained before do not survive that of fresh ones."""
ARTICLES = "textcnn"
"""The first article's student, for the arms."""
PROKT = {"type": "joint_mutual", "variant": "prokt", "temperature": 4.0, "teacher_mix": 0.3}
ARMS: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any]]] = {
    "clip-own": (({**SUM, "clip": "own"},), {}),
    "rates-own": (({**SUM_OWN_RATES, "clip": "global"},), {}),
    "both-own": (({**SUM_OWN_RATES, "clip": "own"},), {}),
    "prokt": ((PROKT,), {}),
    "noise": ((SCHEMES[1], SCHEMES[5]), {"data.train.label_noise": 0.2}),
}
NAMES = {
    "none": "none (control)",
    "offline": "1 offline",
    "joint_isolated": "2 joint_isolated",
    "joint_mutual": "3 joint_mutual",
    "joint_sum": "4 joint_sum",
    "multi_teacher": "5 multi_teacher",
    "hint": "hint (FitNets)",
    "route": "route (RCO)",
}
Found = dict[str, list[Outcome]]
"""Student, or arm -> outcomes by seed."""


def study(base: Spec, student: str, schemes: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """What changes: one student, fixed recipes, one trial of each, the control among them."""
    params, learning_rate = STUDENTS[student]
    controls = [{"type": "none"}] if all(s["type"] != "none" for s in schemes) else []
    return {
        "students": [{"type": student, **params}],
        "schemes": [*controls, *map(dict, schemes)],
        "training.learning_rate": learning_rate,
        "training.seed": seed,
        "budget.trials": len(schemes) + len(controls),
    }


def run_all(bench_: Bench, base: Spec, seeds: Sequence[int], schemes: Sequence[Mapping[str, Any]]) -> Found:
    """Every study, seed by seed: what is there after a cut is whole seeds."""
    found: Found = {name: [] for name in (*STUDENTS, *ARMS)}
    for seed in seeds:
        for student in STUDENTS:
            spec = derived(base, f"{student}-{seed}".replace("_", "-"), study(base, student, schemes, seed))
            found[student].append(bench_.finished(spec))
        for arm, (own, changes) in ARMS.items():
            spec = derived(base, f"{arm}-{seed}", {**study(base, ARTICLES, own, seed), **changes})
            found[arm].append(bench_.finished(spec))
    return found


# ---------------------------------------------------------------- figures


def trials(outcomes: Sequence[Outcome], student: str, scheme: str) -> list[TrialRow]:
    """One a seed."""
    return [outcome.only(student, scheme) for outcome in outcomes]


def gap(
    first: Sequence[Outcome], second: Sequence[Outcome], student: str, schemes: tuple[str, str]
) -> Estimate:
    """First scheme minus second, paired over seeds and rows."""
    first_logits, second_logits = (
        [outcome.logits(outcome.only(student, scheme)) for outcome in outcomes]
        for outcomes, scheme in zip((first, second), schemes, strict=True)
    )
    one = first[0]
    return difference(
        first_logits,
        second_logits,
        one.labels_N,
        labels=one.prepared.labels,
        objective=one.study.quality_name,
    )


def quality(rows: Sequence[TrialRow]) -> Estimate:
    """Over seeds."""
    return over_seeds([float(row.quality or 0) for row in rows])


def teachers(rows: Sequence[TrialRow]) -> str:
    """Quality of the teachers trained beside the students."""
    found = [row.teacher.quality for row in rows if row.teacher is not None]
    return over_seeds(found).percent() if found else ""


def line(outcomes: Sequence[Outcome], student: str, scheme: str, name: str) -> list[str]:
    """One row of the table."""
    rows = trials(outcomes, student, scheme)
    gain = "" if scheme == "none" else gap(outcomes, outcomes, student, (scheme, "none")).points()
    scores = [row.scores for row in rows if row.scores is not None]
    recall = " / ".join(f"{100 * np.mean([s.recall[k] for s in scores]):.1f}" for k in scores[0].recall)
    covered = [s.coverage for s in scores if s.coverage is not None]
    return [
        student,
        name,
        quality(rows).percent(),
        gain,
        teachers(rows),
        over_seeds(covered).percent() if covered else "",
        recall,
        f"{np.mean([row.train_seconds or 0 for row in rows]):.0f}",
        f"{max(row.peak_memory_mb or 0 for row in rows):.0f}",
    ]


def header(outcome: Outcome) -> list[str]:
    """Of `line`."""
    recall = f"recall {' / '.join(outcome.prepared.labels)}, %"
    objective = outcome.study.quality_name
    return [
        "student",
        "scheme",
        f"{objective}, %",
        "minus none, points",
        "its teacher, %",
        "coverage, %",
        recall,
        "s a trial",
        "peak MB",
    ]


def teacher_lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The study's teachers."""
    tuned = [outcome.study.teacher.quality for outcome in outcomes if outcome.study.teacher is not None]
    yield f"Fine-tuned teacher: {over_seeds(tuned).percent()} %."
    for k, teacher in enumerate(outcomes[0].prepared.historical):
        own = [outcome.prepared.historical[k].scores.quality for outcome in outcomes]
        yield f"Historical teacher {teacher.name}: {over_seeds(own).percent()} %."
    recorded = [outcome.prepared.trajectory for outcome in outcomes]
    found = [each for each in recorded if each is not None]
    if found:
        seconds = np.mean([each.seconds for each in found])
        own = [each.scores.quality for each in found]
        yield (
            f"Teacher of joint_isolated: {over_seeds(own).percent()} %, recorded in {seconds:.0f} s a study, "
            "replayed in its trials."
        )


def rates(outcomes: Sequence[Outcome], other: Sequence[Outcome], kind: str, label: str | None) -> Estimate:
    """multi_teacher minus offline of the article's student: coverage, or the recall of a class."""
    pairs = zip(trials(outcomes, ARTICLES, "multi_teacher"), trials(other, ARTICLES, "offline"), strict=True)
    values = []
    for first, second in pairs:
        assert first.scores is not None and second.scores is not None
        one, two = (getattr(s, kind) for s in (first.scores, second.scores))
        values.append(float(one - two if label is None else one[label] - two[label]))
    return over_seeds(values)


def findings(found: Found) -> Iterator[list[str]]:
    """Claim, figure in points, and what it says."""
    main, noisy = found[ARTICLES], found["noise"]

    def claim(text: str, estimate: Estimate) -> list[str]:
        return [text, estimate.points(), estimate.verdict]

    for student in STUDENTS:
        own = found[student]
        yield claim(f"3 better than 2, {student}", gap(own, own, student, ("joint_mutual", "joint_isolated")))
    improved = [
        row.teacher.quality - outcome.prepared.trajectory.scores.quality
        for student in STUDENTS
        for outcome, row in zip(found[student], trials(found[student], student, "joint_mutual"), strict=True)
        if row.teacher is not None and outcome.prepared.trajectory is not None
    ]
    yield claim("3's teacher better than 2's (t over students and seeds)", over_seeds(improved))
    prokt = gap(found["prokt"], main, ARTICLES, ("joint_mutual", "joint_mutual"))
    yield claim(f"ProKT better than 3, {ARTICLES}", prokt)
    for student in STUDENTS:
        own = found[student]
        yield claim(f"4 worse than none, {student}", inverse(gap(own, own, student, ("joint_sum", "none"))))
    for arm, text in (
        ("clip-own", "own clips help 4"),
        ("rates-own", "own rates help 4"),
        ("both-own", "both help 4"),
    ):
        yield claim(f"{text}, {ARTICLES}", gap(found[arm], main, ARTICLES, ("joint_sum", "joint_sum")))
    yield claim(f"5 covers more than offline, {ARTICLES}", rates(main, main, "coverage", None))
    for label in main[0].prepared.labels:
        cost = inverse(rates(main, main, "recall", label))
        yield claim(f"5 costs recall of {label}, {ARTICLES}", cost)
    for scheme in ("offline", "multi_teacher"):
        yield claim(
            f"with a fifth of the labels wrong, {scheme} better than none",
            gap(noisy, noisy, ARTICLES, (scheme, "none")),
        )
        yield claim(f"{scheme} loses less by noise than none", robustness(main, noisy, scheme))


def inverse(estimate: Estimate) -> Estimate:
    """The other way round."""
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def robustness(main: Sequence[Outcome], noisy: Sequence[Outcome], scheme: str) -> Estimate:
    """What noise costs the control, minus what it costs a scheme; t over seeds."""

    def cost(kind: str) -> list[float]:
        clean, dirty = trials(main, ARTICLES, kind), trials(noisy, ARTICLES, kind)
        return [float(c.quality or 0) - float(d.quality or 0) for c, d in zip(clean, dirty, strict=True)]

    return over_seeds([none - own for none, own in zip(cost("none"), cost(scheme), strict=True)])


def report(found: Found) -> Iterator[str]:
    """Every table."""
    first = found[ARTICLES][0]
    yield " ".join(teacher_lines(found[ARTICLES]))
    lines = [line(found[s], s, kind["type"], NAMES[kind["type"]]) for s in STUDENTS for kind in SCHEMES]
    yield table(header(first), lines)
    arms = [
        line(found[arm], ARTICLES, kind["type"], f"{NAMES[kind['type']]}, {arm}")
        for arm, (own, _) in ARMS.items()
        for kind in ({"type": "none"}, *own)
    ]
    yield table(header(first), arms)
    yield table(["claim", "difference, points", "does it hold?"], findings(found))


def prepare(options: argparse.Namespace) -> tuple[Spec, tuple[dict[str, Any], ...]]:
    """The base study and the recipes; the tiny teacher of a trial run has two layers only."""
    base = changed(load_spec("spam_opinions"), options)
    if not options.small:
        return base, SCHEMES
    return shrunk(base), tuple({**s, "layer": 1} if s["type"] == "hint" else s for s in SCHEMES)


def main() -> None:
    """Run what is missing, then print."""
    options = arguments(__doc__, seeds=(1, 2, 3)).parse_args()
    base, schemes = prepare(options)
    with bench("schemes", options) as bench_:
        write_report(report(run_all(bench_, base, options.seeds, schemes)), options.out)


if __name__ == "__main__":
    main()
