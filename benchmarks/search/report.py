"""The report of replays: what was compared and how, then wins and losses alike, table by table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.search import comparisons
from benchmarks.search.comparisons import Interval, Versus
from benchmarks.search.methods import BASELINE, HEADLINES, METHODS, SIDE_BY_SIDE
from benchmarks.search.plots import regret_plot
from benchmarks.search.regret import Line
from benchmarks.search.table import Table
from benchmarks.search.truth import Truth, floor_of
from kdsearch.core.pareto import front

TEXT = Path(__file__).parent / "report.md"
SHARES = (0.95, 0.98, 0.99)
POINTS = (0.25, 0.5, 1.0)
LEVEL = 0.05


@dataclass(frozen=True)
class Played:
    """A table and every replay on it."""

    table: Table
    lines: Sequence[Line]

    def of(self, method: str, workers: int) -> list[Line]:
        """By seed."""
        own = [one for one in self.lines if (one.method, one.workers) == (method, workers)]
        return sorted(own, key=lambda one: one.seed)

    @property
    def workers(self) -> list[int]:
        """That were tried."""
        return sorted({one.workers for one in self.lines})

    def methods(self, workers: int) -> list[str]:
        """That were tried, in the order of the registry."""
        tried = {one.method for one in self.lines if one.workers == workers}
        return [name for name in METHODS if name in tried]

    def baseline(self, method: str, workers: int) -> list[Line]:
        """What a method is compared with: Optuna's default, on shuffled qualities if they were shuffled."""
        name = f"{BASELINE}_shuffled" if METHODS[method].shuffled else BASELINE
        return self.of(name, workers)


def write_report(played: Sequence[Played], out: Path, plots: Path, command: str) -> None:
    """The report, and one plot for each table and number of workers beside it."""
    parts = [TEXT.read_text().replace("COMMAND", command)]
    if any(one.lines for one in played):
        parts += ["## In short\n\n" + _overview(played), _side_by_side(played)]
    parts.append("## Methods\n\n" + _methods())
    for one in played:
        parts.append(_about_table(one))
        parts += [_section(one, workers, out, plots) for workers in one.workers]
        if not one.lines:
            parts.append("Nothing was replayed on it yet.")
    if not played:
        parts.append("No table is here yet, so there are no figures.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _methods() -> str:
    rows = [(f"`{name}`", method.about, method.role) for name, method in METHODS.items()]
    return table(("method", "what it is", "role"), rows)


def _about_table(played: Played) -> str:
    own = played.table
    truth = Truth(own, floor_of(own))
    points = [(float(truth.worth_C[c]), float(own.p90_ms_C[c])) for c in truth.rows]
    best = front(points)
    words = (
        f"{len(truth.rows)} configurations, {len(own.architectures)} architectures, "
        f"{len(own.seeds)} seeds each, {own.num_epochs} epochs of {own.rows_per_epoch:,} rows. "
        f"Floor {truth.floor:g}. "
        f"{int(own.diverged_CS.sum())} of {own.diverged_CS.size} trainings broke off. "
        f"The seeds of a configuration lie {_spread(own):.4f} apart (median). "
        f"Latencies were taken on {own.profile.device_model} (threads: {own.profile.threads}). "
        f"{len(best)} configurations are on the table's front, from {points[best[0]][0]:.3f} at "
        f"{points[best[0]][1]:.3f} ms to {points[best[-1]][0]:.3f} at {points[best[-1]][1]:.3f} ms."
    )
    return f"## Table `{own.data}`\n\n{words}"


def _spread(own: Table) -> float:
    final_CS = own.final_quality_CS[~own.diverged_CS.any(1)]
    return float(np.median(final_CS.max(1) - final_CS.min(1)))


def _section(played: Played, workers: int, out: Path, plots: Path) -> str:
    names = played.methods(workers)
    title = f"### {workers} worker{'s' if workers > 1 else ''}, table `{played.table.data}`"
    any_line = next(one for one in played.lines if one.workers == workers)
    trainings = any_line.budget_epochs / any_line.epochs_per_training
    parts = [title, f"Budget: {trainings:g} whole trainings.", _plot(played, workers, out, plots)]
    if played.of(BASELINE, workers):
        parts += [_headline(played, workers), "Training needed:\n\n" + _needed(played, workers, names)]
    parts.append("Regret of hypervolume:\n\n" + _regrets(played, workers, names))
    parts.append(
        "Whole trainings until a share of the best hypervolume:\n\n" + _costs(played, workers, names)
    )
    parts.append("Stopping, and what a replay costs:\n\n" + _stops(played, workers, names))
    return "\n\n".join(part for part in parts if part)


def _plot(played: Played, workers: int, out: Path, plots: Path) -> str:
    shown = [name for name in METHODS if METHODS[name].role in ("baseline", "ours")]
    lines = {name: played.of(name, workers) for name in shown if played.of(name, workers)}
    if not lines:
        return ""
    plots.mkdir(parents=True, exist_ok=True)
    file = plots / f"regret-{played.table.data}-{workers}.svg"
    title = f"{played.table.data}, workers: {workers}; median regret over seeds"
    file.write_text(regret_plot(title, lines))
    return f"![{title}]({os.path.relpath(file, out.parent)})"


# ---------------------------------------------------------------- figures


def _overview(played: Sequence[Played]) -> str:
    """The training that Optuna's default needs itself, and ours: table by table."""
    rows = []
    for one in played:
        for workers in one.workers:
            end, said = against(one, workers, 1.0), []
            for name in HEADLINES:
                needed = _needed_share(one, workers, name)
                said += [_share(needed) if needed else "", _tested(end, name)]
            own = _needed_share(one, workers, BASELINE)
            rows.append((f"`{one.table.data}`", str(workers), _share(own) if own else "", *said))
    ours = (cell for name in HEADLINES for cell in (f"`{name}`", "at 100 %"))
    header = ("table", "workers", f"`{BASELINE}` itself", *ours)
    return (
        "The share of the budget after which a method has what Optuna's default has at its end (median over "
        "seeds, each beside the same seed of the default), and how the two compare at the end.\n\n"
        + table(header, rows)
    )


def _side_by_side(played: Sequence[Played]) -> str:
    """What the sampler adds where all else is the same."""
    rows = []
    for one in played:
        for workers in one.workers:
            for ours, theirs in SIDE_BY_SIDE:
                own, other = comparisons.paired(one.of(ours, workers), one.of(theirs, workers))
                if own:
                    tests = [_said(_compared(own, other, point)) for point in POINTS]
                    rows.append((f"`{one.table.data}`", str(workers), f"`{ours}`", f"`{theirs}`", *tests))
    header = ("table", "workers", "method", "beside", *(f"at {point:.0%}" for point in POINTS))
    text = (
        "Methods that differ in the sampler alone, paired by seed; p is not corrected for their number. What "
        "`known_latency_first_promotion_rows` proposes is a row and therefore what is trained, as in a "
        "study; all others are snapped."
    )
    return f"{text}\n\n{table(header, rows)}" if rows else ""


def _compared(own: Sequence[Line], other: Sequence[Line], point: float) -> Versus:
    """Regret after a share of the budget."""
    epochs = point * own[0].budget_epochs
    return comparisons.versus(*([one.regret_at(epochs) for one in lines] for lines in (own, other)))


def _needed_share(played: Played, workers: int, method: str) -> Interval | None:
    own, baseline = played.of(method, workers), played.baseline(method, workers)
    return comparisons.median(comparisons.training_needed(own, baseline)) if own and baseline else None


def _headline(played: Played, workers: int) -> str:
    said = []
    for name in HEADLINES:
        needed = _needed_share(played, workers, name)
        if needed is not None:
            when = "not within it" if math.isinf(needed.value) else f"after {_share(needed)} of it"
            said.append(f"`{name}` has {when}")
    if not said:
        return ""
    losses = "; ".join(lost_points(played, workers)) or "none"
    return (
        f"**What Optuna's default has at the end of its budget {', '.join(said)} (median over seeds).** "
        f"Points at which a method is significantly worse than the default: {losses}."
    )


def against(played: Played, workers: int, point: float) -> dict[str, tuple[Versus, float]]:
    """Every method but the baseline itself, with its corrected p, after a share of the budget."""
    found = {}
    for name in played.methods(workers):
        own, baseline = comparisons.paired(played.of(name, workers), played.baseline(name, workers))
        if own and own[0].method != baseline[0].method:
            found[name] = _compared(own, baseline, point)
    corrected = comparisons.holm({name: versus.p for name, versus in found.items()})
    return {name: (versus, corrected[name]) for name, versus in found.items()}


def lost_points(played: Played, workers: int) -> list[str]:
    """Where a method is significantly worse than the baseline."""
    return [
        f"`{name}` at {point:.0%}"
        for point in POINTS
        for name, (versus, p) in against(played, workers, point).items()
        if p < LEVEL and versus.losses > versus.wins
    ]


def _needed(played: Played, workers: int, names: Sequence[str]) -> str:
    end = against(played, workers, 1.0)
    half = against(played, workers, 0.5)
    rows = []
    for name in names:
        own, baseline = played.of(name, workers), played.baseline(name, workers)
        if not baseline:
            continue
        needed = comparisons.median(comparisons.training_needed(own, baseline))
        usual = float(np.median([one.share_at(one.budget_epochs) for one in baseline]))
        fixed = comparisons.median(comparisons.training_for(own, usual))
        rows.append(
            (f"`{name}`", len(own), _share(needed), _share(fixed), _tested(half, name), _tested(end, name))
        )
    header = ("method", "seeds", "of the budget, same seed", "of the budget, median target")
    return table((*header, "against the default at 50 %", "at 100 %"), rows)


def _tested(found: dict[str, tuple[Versus, float]], name: str) -> str:
    if name not in found:
        return ""
    return _said(*found[name])


def _said(versus: Versus, p: float | None = None) -> str:
    shown = versus.p if p is None else p
    return f"{versus.wins}/{versus.ties}/{versus.losses}, p = {shown:.2g}, δ = {versus.cliff:+.2f}"


def _regrets(played: Played, workers: int, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        own = played.of(name, workers)
        points = [comparisons.median([one.regret_at(p * one.budget_epochs) for one in own]) for p in POINTS]
        mean = comparisons.median([one.mean_regret for one in own])
        handed = comparisons.median([1 - one.handed_over for one in own])
        rows.append((f"`{name}`", *map(_figure, [*points, mean, handed])))
    header = ["method", *(f"{point:.0%} of the budget" for point in POINTS)]
    return table((*header, "mean over the budget", "of the front as seen at the end"), rows)


def _costs(played: Played, workers: int, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        own = played.of(name, workers)
        costs = [[one.cost_of(share) for one in own] for share in SHARES]
        reached = [f" ({np.isfinite(cost).mean():.0%} of seeds)" for cost in costs]
        figures = [_trainings(comparisons.median(cost)) for cost in costs]
        rows.append((f"`{name}`", *(f + r for f, r in zip(figures, reached, strict=True))))
    return table(("method", *(f"{share:.0%}" for share in SHARES)), rows)


def _stops(played: Played, workers: int, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        own = played.of(name, workers)
        stopped, wrong = sum(o.num_stopped for o in own), sum(o.wrong_stops for o in own)
        rows.append(
            (
                f"`{name}`",
                _mean(o.num_trials for o in own),
                _mean(o.num_stopped for o in own),
                _mean(o.num_promoted for o in own),
                f"{wrong / stopped:.1%}" if stopped else "",
                f"{np.mean([o.lost for o in own]):.4f}" if stopped else "",
                _mean(o.num_failed for o in own),
                f"{np.mean([o.took_s for o in own]):.2f} s",
            )
        )
    header = ("method", "trials", "stopped", "called back", "wrong stops", "hypervolume lost", "failed")
    return table((*header, "time of a replay"), rows)


# ---------------------------------------------------------------- words


def _mean(values: Iterable[float]) -> str:
    return f"{np.mean(list(values)):.1f}"


def _figure(found: Interval) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _share(found: Interval) -> str:
    return _spelt(found, "{:.0%}")


def _trainings(found: Interval) -> str:
    return _spelt(found, "{:.1f}")


def _spelt(found: Interval, form: str) -> str:
    """Infinite is what the budget did not suffice for."""
    value, low, high = ("never" if math.isinf(figure) else form.format(figure) for figure in found)
    return value if value == low == high else f"{value} ({low} to {high})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
