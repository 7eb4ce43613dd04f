"""Rungs: after some epochs the study's pruner looks at a trial, and says whether it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdsearch.core.records import Decision, EpochReport, Tried
from kdsearch.core.spec import StudySpec
from kdsearch.search.plan import CONTROLLED
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.pruners.base import Ladder, Pruner, Situation
from kdsearch.search.pruners.none import NoPruner
from kdsearch.store.leases import Lease
from kdsearch.worker.material import Material


def pruner(spec: StudySpec) -> Pruner:
    """The study's."""
    return PRUNERS[spec.search.pruner]()


def stops_early(spec: StudySpec) -> bool:
    """Whether trials of the study may end before their last epoch, so that learning curves count."""
    return not isinstance(pruner(spec), NoPruner)


def ladder(spec: StudySpec) -> Ladder:
    """The study's rungs."""
    return Ladder.of(spec.search.rungs, epochs=spec.training.epochs)


def situation(material: Material, tried: Sequence[Tried]) -> Situation:
    """What the pruner looks at."""
    spec = material.context.spec
    return Situation(tried=tried, ladder=ladder(spec), quality_floor=material.quality_floor)


class Judge:
    """Asked after each epoch of one attempt at a trial; raises StorageError where the database is away.

    The control arms among the first trials are judged and never paused: without them nobody could say
    whether distilling paid.
    """

    def __init__(self, material: Material, lease: Lease) -> None:
        self.material, self.lease = material, lease
        spec = material.context.spec
        self.rungs = ladder(spec).rungs if stops_early(spec) and not lease.repeat else ()
        self.qualities: dict[int, float] = {}
        """Its own newest ones, which may not have reached the database yet."""

    def __call__(self, report: EpochReport) -> Decision | None:
        """What becomes of the trial; None where nobody has a say."""
        if report.scores is not None:
            self.qualities[report.epoch] = report.scores.quality
        return self._judged(report.epoch) if report.epoch in self.rungs else None

    def _judged(self, epoch: int) -> Decision | None:
        context = self.material.context
        tried = context.history.read(context.store.engine)
        known = {trial.number: trial for trial in tried}
        own = known.get(self.lease.number)
        if own is None:  # the study was deleted: the next write finds out
            return None
        own = replace(own, qualities={**own.qualities, **self.qualities})
        known[own.number] = own
        found = pruner(context.spec).judge(own, situation(self.material, list(known.values())))
        if found.action == "pause" and self.lease.origin == CONTROLLED:
            words = f"a control arm is trained to its end; else it would wait: {found.reason}"
            found = replace(found, action="continue", reason=words)
        return found if found.epoch is not None else replace(found, epoch=epoch)
