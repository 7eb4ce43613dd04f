"""What is not worth training, found out before it is trained: too slow, too large, done already, hopeless."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.core.pareto import staircase
from kdsearch.core.records import Decision, Latency, Tried
from kdsearch.search.drawing import PERFECT
from kdsearch.store.leases import Lease
from kdsearch.worker.material import Material


def by_limits(limits: Mapping[str, float], latency: Latency, objective: str) -> Decision | None:
    """Refused where a figure lies above its ceiling; ``limits`` say how far."""
    found = {"latency_ms": latency.at(objective), "size_mb": latency.size_mb}
    for name, excess in limits.items():
        if excess > 0:
            unit, of = ("ms", objective) if name == "latency_ms" else ("MB", "size")
            ceiling = found[name] - excess
            return Decision(
                action="reject",
                rule="latency" if name == "latency_ms" else "size",
                reason=f"its {of} of {found[name]:.4g} {unit} is above the ceiling of {ceiling:.4g} {unit}",
                inputs={name: found[name], "ceiling": ceiling, "noisy": int(latency.noisy)},
            )
    return None


def by_history(material: Material, lease: Lease, latency: Latency | None) -> Decision | None:
    """Refused where an earlier trial trains the same, or where even a perfect score is behind the front.

    Only what was never begun, and no repeat of a finalist: that is trained whatever became of the front.
    """
    if lease.repeat or lease.checkpoint is not None:
        return None
    context = material.context
    name = context.spec.objectives.latency
    tried = context.history.read(context.store.engine)
    if latency is None:
        return duplicate(lease, tried)
    return hopeless(latency.at(name), lease.number, tried)


def duplicate(lease: Lease, tried: list[Tried]) -> Decision | None:
    """Refused where an earlier trial, unless it failed, has the same configuration."""
    own = lease.config.identity
    for other in tried:
        if other.number < lease.number and other.state != "failed" and other.config.identity == own:
            return Decision(
                action="reject",
                rule="duplicate",
                reason=f"trial {other.number} trains exactly the same",
                inputs={"duplicate_of": other.number},
            )
    return None


def hopeless(latency_ms: float, number: int, tried: list[Tried]) -> Decision | None:
    """Refused where a faster student has reached all that there is to reach."""
    points = {
        (trial.quality, trial.latency_ms): trial.number
        for trial in tried
        if trial.quality is not None and trial.latency_ms is not None and trial.number != number
    }
    faster = [point for point in points if point[1] < latency_ms]
    if staircase(faster, latency_ms) < PERFECT:
        return None
    best = min((point for point in faster if point[0] >= PERFECT), key=lambda point: point[1])
    return Decision(
        action="reject",
        rule="front",
        reason=f"trial {points[best]} is faster and perfect: no quality puts this one on the front",
        inputs={"latency_ms": latency_ms, "faster": points[best], "faster_ms": best[1]},
    )
