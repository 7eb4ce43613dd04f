"""A made-up table: learning curves as distillation has them, for trying a replay without the real one.

Nothing about searches is concluded from it. What it has in common with real tables: wide and slow students
are better in the end but start slower, the best learning rate hangs on the student, distilling helps at a
middle temperature, seeds differ, high rates now and then break a training off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.arms import STUDIES
from benchmarks.search.design import STUDY, architecture_name, configurations
from benchmarks.search.table import Architecture, FloatArray, Table, Teacher
from kdsearch.core.facts import Facts
from kdsearch.core.records import HardwareProfile, TrialConfig
from kdsearch.core.studyfile import read_study, spec_to_json
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import registered

SEEDS = (17, 18)
ROWS = 2000
KIND = {"bag": (0.02, 0.74, -4.5), "textcnn": (0.12, 0.79, -5.5), "bilstm": (0.9, 0.82, -6.0)}
"""Of each student: milliseconds, final quality, log of the best learning rate."""
GAIN = {"none": 0.0, "offline": 0.02, "hint": 0.025, "route": 0.02}
FACTS = Facts(
    num_labels=2,
    pools=("train", "augmented"),
    epochs=9,
    anchors=3,
    num_historical=0,
    teacher_width=384,
    teacher_layers=6,
    bert_teacher=True,
    vector_width=None,
    encoder_layers=None,
)


def synthetic(count: int, *, seed: int = 0) -> Table:
    """A table of so many configurations of the real table's space."""
    env = {"KDSEARCH_DATA": "data", "KDSEARCH_TEACHER": "teacher"}
    spec = read_study(STUDIES / f"{STUDY}.yaml", env=env).spec
    configs = configurations(Plan(spec, registered(FACTS)), count, seed=seed)
    rng = np.random.default_rng(seed)
    epochs = spec.training.epochs
    quality_CSE = np.array([[_curve(config, epochs, rng) for _ in SEEDS] for config in configs])
    scored_CSE = np.isfinite(quality_CSE)
    broke_CSE = np.array([[_broken(config, epochs, rng) for _ in SEEDS] for config in configs])
    seconds_CSE = np.array([[_seconds(config, epochs, rng) for _ in SEEDS] for config in configs])
    seconds_CSE[broke_CSE] = np.nan
    quality_CSE[broke_CSE] = np.nan
    names = [architecture_name(config) for config in configs]
    known = list(dict.fromkeys(names))
    return Table(
        data="synthetic",
        spec=spec_to_json(spec),
        facts=FACTS.to_json(),
        numbers_C=tuple(range(count)),
        configs=configs,
        seeds=SEEDS,
        rows_per_epoch=ROWS,
        quality_CSE=quality_CSE,
        nll_CSE=np.where(scored_CSE, 1 - quality_CSE, np.nan),
        seconds_CSE=seconds_CSE,
        cpu_seconds_CSE=seconds_CSE,
        architecture_C=tuple(known.index(name) for name in names),
        architectures=tuple(_architecture(name, configs[names.index(name)], rng) for name in known),
        teacher=Teacher(quality=0.9, nll=0.3, p50_ms=5.0, p90_ms=5.5, size_mb=90.0),
        profile=_profile(),
    )


def _profile() -> HardwareProfile:
    return HardwareProfile(
        device_model="none", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
    )


def _width(config: TrialConfig) -> float:
    """Product of the integer parameters, 1 for the smallest student of the space."""
    sizes: list[Any] = list(config.student_params.values())
    whole = [max(1.0, size / 32) for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
    return float(np.prod([*whole, *(sum(size) / 5 for size in sizes if isinstance(size, tuple))]))


def _architecture(name: str, config: TrialConfig, rng: np.random.Generator) -> Architecture:
    ms = KIND[config.student][0] * _width(config) ** 0.5 * float(np.exp(rng.normal(0, 0.03)))
    return Architecture(key=name, name=name, p50_ms=ms * 0.9, p90_ms=ms, size_mb=ms, num_params=1000)


def _curve(config: TrialConfig, epochs: int, rng: np.random.Generator) -> FloatArray:
    """Quality by epoch: rises to an end that the configuration and the seed decide."""
    _, end, best_rate = KIND[config.student]
    off = np.log(config.learning_rate) - best_rate + 0.1 * np.log2(_width(config))
    params = {**config.student_params, **config.scheme_params}
    temperature, share = float(params.get("temperature", 4.0)), float(params.get("lambda", 0.0))  # type: ignore[arg-type]
    gain = GAIN[config.scheme] * share * float(np.exp(-0.5 * (np.log(temperature / 4)) ** 2))
    end += 0.012 * np.log2(_width(config)) + gain - 0.02 * off**2 - 0.03 * abs(float(params["dropout"]) - 0.3)  # type: ignore[arg-type]
    pace = float(np.exp(0.5 * min(off, 1.0))) / (1 + 0.15 * np.log2(_width(config)) + 0.3 * share)
    hints = int(params.get("hint_epochs", 0))  # type: ignore[arg-type]
    passed_E = np.maximum(np.arange(1, epochs + 1) - hints, 0)
    quality_E = 0.5 + max(end + rng.normal(0, 0.004) - 0.5, 0.01) * (1 - np.exp(-pace * passed_E))
    return np.where(passed_E > 0, np.clip(quality_E + rng.normal(0, 0.004, epochs), 0.0, 1.0), np.nan)


def _broken(config: TrialConfig, epochs: int, rng: np.random.Generator) -> list[bool]:
    """Which epochs are never reached: high rates break off now and then."""
    breaks = config.learning_rate > 0.02 and rng.random() < 0.2
    return [bool(breaks) and epoch > epochs // 2 for epoch in range(epochs)]


def _seconds(config: TrialConfig, epochs: int, rng: np.random.Generator) -> FloatArray:
    usual = 0.5 + KIND[config.student][0] * _width(config) ** 0.5
    return np.asarray(usual * np.exp(rng.normal(0, 0.1, epochs)))
