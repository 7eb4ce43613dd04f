"""The methods that are compared: each a sampler, a pruner, and what the search is told of latencies.

`known_latency` chooses among the table's untried rows; with `snapped` it chooses among random draws of the
whole space and is snapped to the nearest untried row, as every sampler of Optuna's is. Its figures are those
to quote.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from benchmarks.search.askers import Beginner, OptunaAsker, Stratified
from benchmarks.search.design import architecture_of
from benchmarks.search.knowing import KnowingAsker
from benchmarks.search.simulator import Asker, Latencies, Setting, Simulator, Story
from benchmarks.search.snapping import Snapper
from benchmarks.search.table import Table
from benchmarks.search.truth import Truth, shuffled
from kdsearch.core.records import TrialConfig
from kdsearch.search.forest import forest
from kdsearch.search.pruners import PRUNERS
from kdsearch.search.surrogate import MakeModel, gaussian_process

Knowledge: TypeAlias = Literal["measured", "exact", "permuted"]
"""Of the latency of a configuration that is only considered: known if its architecture was tried before in
this search and modelled otherwise, as in a study; always known, as if all had been measured beforehand; or
known wrongly, with the figures of architectures exchanged."""
Role: TypeAlias = Literal["baseline", "ours", "ablation", "control"]
BASELINE = "tpe"
HEADLINES = ("known_latency_snapped", "known_latency_first_promotion")
"""What the report speaks of first: the sampler by itself, and all that a study can do."""
SIDE_BY_SIDE = (
    ("known_latency_snapped", "tpe"),
    ("known_latency_first", "tpe_first"),
    ("known_latency_promotion", "tpe_promotion"),
    ("known_latency_first_promotion", "tpe_first_promotion"),
    ("known_latency_first_promotion_rows", "tpe_first_promotion"),
)
"""Methods that differ in the sampler alone, and in the last pair in snapping: what knowing latency adds."""
SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "sobol": lambda seed: QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
    "tpe": lambda seed: TPESampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
}
"""Optuna's own, at their defaults."""
MODELS: Mapping[str, MakeModel] = {"process": gaussian_process, "forest": forest}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the report."""

    about: str
    role: Role = "baseline"
    sampler: str
    """One of Optuna's `SAMPLERS`, or ``known_latency``."""
    snapped: bool = True
    """Whether proposals come from the whole space; otherwise from the table's rows."""
    pruner: str = "none"
    knowledge: Knowledge = "measured"
    model: Literal["process", "forest"] = "process"
    """Of quality, for ``known_latency``."""
    log_latency: bool = False
    """Whether Optuna is told the logarithm of the latency."""
    first: bool = False
    """Whether a study's stratified first trials come first."""
    shuffled: bool = False
    """Whether trainings change places among configurations, so that nothing can be learnt of them."""


def _optuna(sampler: str, about: str, **rest: object) -> Method:
    return Method(sampler=sampler, about=about, **rest)  # type: ignore[arg-type]


def _ours(about: str, role: Role = "ours", **rest: object) -> Method:
    return Method(sampler="known_latency", about=about, role=role, **rest)  # type: ignore[arg-type]


METHODS: Mapping[str, Method] = {
    "random": _optuna("random", "uniform random search"),
    "sobol": _optuna("sobol", "Optuna's QMC sampler (scrambled Sobol)"),
    "tpe": _optuna("tpe", "Optuna's default"),
    "gp": _optuna("gp", "Optuna's Gaussian process (logEHVI)"),
    "nsga2": _optuna("nsga2", "Optuna's NSGA-II"),
    "mo_asha": _optuna("random", "random, correct MO-ASHA (stopping)", pruner="mo_asha"),
    "mo_asha_promotion": _optuna("random", "random, correct MO-ASHA (promotion)", pruner="mo_asha_promotion"),
    "asha": _optuna("random", "random, ASHA on quality alone", pruner="asha"),
    "known_latency_snapped": _ours("known latency, snapped like Optuna's samplers"),
    "known_latency_snapped_front": _ours("the same, with the pruner `front`", pruner="front"),
    "known_latency": _ours("known latency, choosing among the table's rows", snapped=False),
    "known_latency_front": _ours("the same, with the pruner `front`", snapped=False, pruner="front"),
    "known_latency_first": _ours("known latency, snapped, after stratified first trials", first=True),
    "known_latency_exact": _ours(
        "known latency, snapped, every architecture measured beforehand", "ablation", knowledge="exact"
    ),
    "known_latency_forest": _ours(
        "known latency, snapped, a random forest as the model of quality", "ablation", model="forest"
    ),
    "known_latency_promotion": _ours(
        "known latency, snapped, with MO-ASHA (promotion)", "ablation", pruner="mo_asha_promotion"
    ),
    "known_latency_first_promotion": _ours(
        "known latency, snapped, after stratified first trials, with MO-ASHA (promotion)",
        first=True,
        pruner="mo_asha_promotion",
    ),
    "known_latency_first_promotion_rows": _ours(
        "the same, choosing among the table's rows",
        "ablation",
        first=True,
        pruner="mo_asha_promotion",
        snapped=False,
    ),
    "tpe_front": _optuna("tpe", "Optuna's default with the pruner `front`", role="ablation", pruner="front"),
    "tpe_promotion": _optuna(
        "tpe", "Optuna's default with MO-ASHA (promotion)", role="ablation", pruner="mo_asha_promotion"
    ),
    "tpe_first_promotion": _optuna(
        "tpe",
        "Optuna's default after stratified first trials, with MO-ASHA (promotion)",
        role="ablation",
        pruner="mo_asha_promotion",
        first=True,
    ),
    "tpe_first": _optuna(
        "tpe", "Optuna's default after stratified first trials", role="ablation", first=True
    ),
    "tpe_log": _optuna("tpe", "Optuna's default, told log latency", role="ablation", log_latency=True),
    "random_front": _optuna("random", "random with the pruner `front`", role="ablation", pruner="front"),
    "known_latency_permuted": _ours(
        "known latency, snapped, told wrong latencies", "control", knowledge="permuted"
    ),
    "known_latency_shuffled": _ours("known latency, snapped, qualities shuffled", "control", shuffled=True),
    "tpe_shuffled": _optuna("tpe", "Optuna's default, qualities shuffled", role="control", shuffled=True),
    "random_shuffled": _optuna("random", "random, qualities shuffled", role="control", shuffled=True),
}
"""By name; a name keeps its meaning, as journals have it."""


def asker_of(method: Method, snapper: Snapper, seed: int) -> Asker:
    """The method's sampler, fresh."""
    ours = method.sampler == "known_latency"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which of Optuna's samplers are experimental
        sampler = SAMPLERS[BASELINE if ours else method.sampler](seed)
    optuna = OptunaAsker(sampler, snapper, method.log_latency)
    asker: Beginner = _knowing(method, optuna, seed) if ours else optuna
    return Stratified(asker, snapper, seed) if method.first else asker


def _knowing(method: Method, optuna: OptunaAsker, seed: int) -> KnowingAsker:
    return KnowingAsker(optuna, seed, snapped=method.snapped, make_model=MODELS[method.model])


def replay(method: Method, setting: Setting, snapper: Snapper) -> Story:
    """Play a method."""
    table = setting.truth.table
    told_A = np.array([one.p90_ms for one in table.architectures])
    if method.knowledge == "permuted":
        known = np.flatnonzero(np.isfinite(told_A))
        told_A[known] = told_A[np.random.default_rng([setting.seed, 3]).permutation(known)]
    told_C = told_A[np.array(table.architecture_C)]
    asker = asker_of(method, snapper, setting.seed)
    simulator = Simulator(setting, asker, PRUNERS[method.pruner](), told_C.tolist())
    return simulator.run(lambda running: latencies(method.knowledge, running, told_A.tolist()))


def latencies(knowledge: Knowledge, simulator: Simulator, told_A: Sequence[float]) -> Latencies:
    """What the search knows of a configuration's latency at the time that it asks."""
    table: Table = simulator.setting.truth.table
    found = zip(table.configs, table.architecture_C, strict=True)
    places = {architecture_of(config): place for config, place in found}

    def told(config: TrialConfig) -> float | None:
        place = places.get(architecture_of(config))
        if place is None or not np.isfinite(told_A[place]) or not known(place):
            return None
        return told_A[place]

    def known(place: int) -> bool:
        return knowledge == "exact" or any(table.architecture_C[p.row] == place for p in simulator.plays)

    return told


def truth_of(method: Method, truth: Truth, seed: int) -> Truth:
    """The table that a method is played on: its own, or one with its trainings shuffled."""
    rng = np.random.default_rng([seed, 4])
    return Truth(shuffled(truth.table, rng), truth.floor) if method.shuffled else truth
