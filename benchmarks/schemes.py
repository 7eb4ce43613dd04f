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
from benchmarks.intervals import BoolArray, Estimate, contrast, difference, over_seeds
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


def run_all(
    bench_: Bench, base: Spec, options: argparse.Namespace, schemes: Sequence[Mapping[str, Any]]
) -> Found:
    """Every study, seed by seed: what is there after a cut is whole seeds."""
    found: Found = {name: [] for name in (*STUDENTS, *options.arms)}
    for seed in options.seeds:
        for student in STUDENTS:
            spec = derived(base, f"{student}-{seed}".replace("_", "-"), study(base, student, schemes, seed))
            found[student].append(bench_.finished(spec))
        for arm in options.arms:
            own, changes = ARMS[arm]
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


def hits(outcomes: Sequence[Outcome], scheme: str) -> BoolArray:
    """Which validation rows the article's student gets right, (seeds, rows)."""
    found = [outcome.logits(outcome.only(ARTICLES, scheme)).argmax(1) for outcome in outcomes]
    right: BoolArray = np.stack(found) == outcomes[0].labels_N
    return right


def covered(outcomes: Sequence[Outcome]) -> BoolArray:
    """Which validation rows at least one historical teacher gets right, (seeds, rows)."""
    rows = []
    for outcome in outcomes:
        stored = outcome.store.blobs.open(outcome.prepared.signals["historical"]["validation"])
        rows.append((np.load(stored).argmax(2) == outcome.labels_N[:, None]).any(1))
    return np.stack(rows)


def findings(found: Found) -> Iterator[list[str]]:
    """Claim, figure in points, and what it says."""
    for text, estimate in (*feedback(found), *summed(found), *historical(found), *noise(found)):
        yield [text, estimate.points(), estimate.verdict]


def feedback(found: Found) -> Iterator[tuple[str, Estimate]]:
    """Is 3 better than 2, and does it improve the teacher?"""
    for student in STUDENTS:
        own = found[student]
        yield (
            f"3 better than 2, {student}",
            gap(own, own, student, ("joint_mutual", "joint_isolated")),
        )
    # teachers' logits are not kept: over seeds alone, each the mean over students
    yield "3's teacher better than 2's (t over seeds)", over_seeds(improvements(found))
    if "prokt" in found:
        prokt = gap(found["prokt"], found[ARTICLES], ARTICLES, ("joint_mutual", "joint_mutual"))
        yield f"ProKT better than 3, {ARTICLES}", prokt


def improvements(found: Found) -> list[float]:
    """By seed: the mean over students of what 3's teacher is better than 2's."""
    gains = []
    for student in STUDENTS:
        mutual = trials(found[student], student, "joint_mutual")
        isolated = trials(found[student], student, "joint_isolated")
        pairs = [(m.teacher, i.teacher) for m, i in zip(mutual, isolated, strict=True)]
        gains.append([m.quality - i.quality for m, i in pairs if m is not None and i is not None])
    return [float(np.mean(of_seed)) for of_seed in zip(*gains, strict=True)]


def summed(found: Found) -> Iterator[tuple[str, Estimate]]:
    """Does 4 degrade the student, and is it the clip or the rate?"""
    for student in STUDENTS:
        own = found[student]
        yield f"none better than 4, {student}", gap(own, own, student, ("none", "joint_sum"))
    for arm, text in (("clip-own", "own clips"), ("rates-own", "own rates"), ("both-own", "both")):
        if arm in found:
            helped = gap(found[arm], found[ARTICLES], ARTICLES, ("joint_sum", "joint_sum"))
            yield f"4 better with {text}, {ARTICLES}", helped


def historical(found: Found) -> Iterator[tuple[str, Estimate]]:
    """What 5 does to coverage and to the recall of each class."""
    main = found[ARTICLES]
    arms = [(1, hits(main, "multi_teacher")), (-1, hits(main, "offline"))]
    yield f"5 covers more than offline, {ARTICLES}", contrast(arms, covered(main))
    flipped = [(-sign, right) for sign, right in arms]
    for number, label in enumerate(main[0].prepared.labels):
        counted = np.broadcast_to(main[0].labels_N == number, arms[0][1].shape)
        yield f"5 has less recall of {label} than offline, {ARTICLES}", contrast(flipped, counted)


def noise(found: Found) -> Iterator[tuple[str, Estimate]]:
    """A fifth of the training labels is wrong: who loses less?"""
    if "noise" not in found:
        return
    main, noisy = found[ARTICLES], found["noise"]
    everything = np.ones_like(hits(main, "none"))
    cost_of_control = [(1, hits(main, "none")), (-1, hits(noisy, "none"))]
    for scheme in ("offline", "multi_teacher"):
        better = gap(noisy, noisy, ARTICLES, (scheme, "none"))
        yield f"with noise, {scheme} better than none, {ARTICLES}", better
        cost = [(-1, hits(main, scheme)), (1, hits(noisy, scheme))]
        spared = contrast([*cost_of_control, *cost], everything)
        yield f"noise costs {scheme} less accuracy than none, {ARTICLES}", spared


def report(found: Found) -> Iterator[str]:
    """Every table."""
    first = found[ARTICLES][0]
    yield " ".join(teacher_lines(found[ARTICLES]))
    lines = [line(found[s], s, kind["type"], NAMES[kind["type"]]) for s in STUDENTS for kind in SCHEMES]
    yield table(header(first), lines)
    arms = [
        line(found[arm], ARTICLES, kind["type"], f"{NAMES[kind['type']]}, {arm}")
        for arm in ARMS
        if arm in found
        for kind in ({"type": "none"}, *ARMS[arm][0])
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
    parser = arguments(__doc__, seeds=(1, 2, 3))
    parser.add_argument("--arms", nargs="*", choices=tuple(ARMS), default=list(ARMS), help="only these arms")
    options = parser.parse_args()
    base, schemes = prepare(options)
    with bench("schemes", options) as bench_:
        write_report(report(run_all(bench_, base, options, schemes)), options.out)


if __name__ == "__main__":
    main()
