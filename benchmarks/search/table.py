"""The table: what came of every configuration of a random design, epoch by epoch, on one data set.

A table is one small file, `tables/<data>.json.gz`; equal tables are equal bytes. Nothing here loads torch
but `Table.plan`.

Letters: C configurations, S seeds, E epochs, A architectures. NaN is what there is not: the quality of an
epoch that is not scored (hints) or that a diverged training never reached, a latency nobody has taken yet.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kdsearch.core.canonical import canonical_json
from kdsearch.core.facts import Facts
from kdsearch.core.records import HardwareProfile, TrialConfig
from kdsearch.core.studyfile import spec_from_json

if TYPE_CHECKING:
    from kdsearch.search.plan import Plan

FORMAT = 1
TABLES = Path(__file__).parent / "tables"
FloatArray = npt.NDArray[np.float64]
Json = Mapping[str, Any]
CURVES = ("quality_CSE", "nll_CSE", "seconds_CSE", "cpu_seconds_CSE")
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Students that take equally long."""

    key: str
    """As kdsearch's own figures are named."""
    name: str
    """For people: ``textcnn embed_dim=32 filters=64``."""
    p50_ms: float = np.nan
    p90_ms: float = np.nan
    size_mb: float = np.nan
    num_params: int = 0
    noisy: bool = False
    """Whether something else may have used the machine meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What the students were distilled from, under the same protocol."""

    quality: float
    nll: float
    p50_ms: float = np.nan
    p90_ms: float = np.nan
    size_mb: float = np.nan
    num_params: int = 0
    noisy: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Every finished configuration of one data set: all its seeds are there."""

    data: str
    """``sst2`` or ``yelp``."""
    spec: Json
    """Of the study whose space was drawn from, as JSON."""
    facts: Json
    """What that study offers, as JSON."""
    numbers_C: tuple[int, ...]
    """Place of each configuration in the design: the same in every data set."""
    configs: tuple[TrialConfig, ...]
    """With the study's own seed."""
    seeds: tuple[int, ...]
    rows_per_epoch: int
    quality_CSE: FloatArray
    """The study's objective on the validation rows after each epoch."""
    nll_CSE: FloatArray
    seconds_CSE: FloatArray
    """Of each epoch by the clock, validation included; the machine was shared."""
    cpu_seconds_CSE: FloatArray
    """Of each epoch on its core: what it takes where nothing else runs."""
    architecture_C: tuple[int, ...]
    """Which of `architectures` each configuration has."""
    architectures: tuple[Architecture, ...]
    teacher: Teacher
    profile: HardwareProfile
    """What the latencies are true of."""

    @property
    def num_epochs(self) -> int:
        """E."""
        return int(self.quality_CSE.shape[2])

    @cached_property
    def p90_ms_C(self) -> FloatArray:  # noqa: N802
        """Latency of each configuration."""
        return np.array([self.architectures[a].p90_ms for a in self.architecture_C])

    @cached_property
    def best_quality_CSE(self) -> FloatArray:  # noqa: N802
        """The best scored epoch so far: what a trial is worth that ends here. NaN before the first one."""
        running = np.fmax.accumulate(self.quality_CSE, axis=2)
        return np.asarray(running, np.float64)

    @cached_property
    def final_quality_CS(self) -> FloatArray:  # noqa: N802
        """What each training was worth at its end."""
        return self.best_quality_CSE[:, :, -1]

    @cached_property
    def diverged_CS(self) -> npt.NDArray[np.bool_]:  # noqa: N802
        """Trainings that broke off: they have no seconds for the epochs that they never reached."""
        return np.isnan(self.seconds_CSE[:, :, -1])

    @cached_property
    def plan(self) -> Plan:
        """The space that the configurations were drawn from, as samplers are handed it."""
        from kdsearch.search.plan import Plan
        from kdsearch.search.spaces import registered

        return Plan(spec_from_json(self.spec), registered(Facts.from_json(self.facts)))

    def save(self, path: Path) -> None:
        """Write it; equal tables give equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = gzip.compress(canonical_json(_plain(self)).encode(), compresslevel=9, mtime=0)
        path.write_bytes(data)


def load(path: Path) -> Table:
    """Read a table."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    if data.pop("format") != FORMAT:
        raise ValueError(f"{path} is a table of another format: make it anew")
    curves: dict[str, Any] = {name: np.array(data.pop(name), np.float64) for name in CURVES}
    return Table(
        **curves,
        numbers_C=tuple(data.pop("numbers_C")),
        configs=tuple(TrialConfig.from_json(config) for config in data.pop("configs")),
        seeds=tuple(data.pop("seeds")),
        architecture_C=tuple(data.pop("architecture_C")),
        architectures=tuple(Architecture(**_numbers(one)) for one in data.pop("architectures")),
        teacher=Teacher(**_numbers(data.pop("teacher"))),
        profile=HardwareProfile(**data.pop("profile")),
        **data,
    )


def load_all(folder: Path = TABLES) -> tuple[Table, ...]:
    """Every table of a folder, by name."""
    return tuple(load(path) for path in sorted(folder.glob("*.json.gz")))


def _plain(table: Table) -> dict[str, Any]:
    """As JSON, which knows no NaN: null stands for it."""
    return {
        "format": FORMAT,
        "data": table.data,
        "spec": table.spec,
        "facts": table.facts,
        "numbers_C": table.numbers_C,
        "configs": [config.to_json() for config in table.configs],
        "seeds": table.seeds,
        "rows_per_epoch": table.rows_per_epoch,
        **{name: _rounded(getattr(table, name).tolist()) for name in CURVES},
        "architecture_C": table.architecture_C,
        "architectures": [_rounded(vars(one)) for one in table.architectures],
        "teacher": _rounded(vars(table.teacher)),
        "profile": vars(table.profile),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, DIGITS)
    return value


def _numbers(data: Json) -> dict[str, Any]:
    return {key: np.nan if value is None else value for key, value in data.items()}
