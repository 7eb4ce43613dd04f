"""A small problem to distil: token pools with a rule to learn, teacher logits, and a tiny student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdsearch.core.records import EpochReport
from kdsearch.core.specteacher import JointSpec
from kdsearch.data.batches import Output
from kdsearch.data.tokens import TokenPool, text_keys
from kdsearch.distill import checkpoint
from kdsearch.distill.fit import FitReport, FitSettings, Keep, fit
from kdsearch.distill.live import LiveTeacher
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import TEACHER, Setting, Stage
from kdsearch.distill.trajectory import Trajectory, record_trajectory

VOCABULARY = 40
LABELS = ("ham", "spam", "odd")


def pool_of(rows: Sequence[Sequence[int]], labels: Sequence[int], name: str = "train") -> TokenPool:
    return TokenPool(
        name=name,
        ids=np.asarray([i for row in rows for i in row], np.int32),
        offsets=np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64),
        labels_N=np.asarray(labels, np.int64),
        keys=text_keys([f"{name} {row}" for row in rows]),
    )


def random_pool(num_rows: int, *, seed: int, name: str, labelled: bool = True) -> TokenPool:
    """The label is the first token modulo the number of labels; some rows are empty or one token."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, VOCABULARY, size=rng.integers(0, 9)).tolist() for _ in range(num_rows)]
    labels = [(row[0] if row else 0) % len(LABELS) if labelled else -1 for row in rows]
    return pool_of(rows, labels, name)


class TinyStudent(nn.Module):
    """Mean of embeddings, dropout, linear; notes in which mode each forward pass ran."""

    def __init__(self, *, seed: int = 0, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(8, len(LABELS))
        self.modes: list[bool] = []

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        self.modes.append(self.training)
        mask_BT1 = attention_mask_BT.unsqueeze(-1).float()
        summed_BD = (self.embedding(input_ids_BT) * mask_BT1).sum(1)
        hidden_BD = self.norm(summed_BD / mask_BT1.sum(1).clamp(min=1))
        return Output(self.classifier(self.dropout(hidden_BD)), hidden_BD)


@dataclass
class Problem:
    """Everything `fit` needs, with as few words as possible in a test."""

    pools: dict[str, TokenPool]
    signals: dict[str, dict[str, np.ndarray]]
    validation: TokenPool
    settings: FitSettings
    reports: list[EpochReport] = field(default_factory=list)
    checkpoints: list[bytes] = field(default_factory=list)

    @property
    def teacher_logits(self) -> dict[str, np.ndarray]:
        return self.signals[TEACHER]

    @property
    def setting(self) -> Setting:
        rows = sum(len(pool) for pool in self.pools.values())
        return Setting(epochs=3, pools=tuple(self.pools), rows_per_epoch=rows)

    def stages(self, scheme: str, **params: Any) -> tuple[Stage, ...]:
        return build_scheme(scheme, params).stages(self.setting)

    def keep(self, report: EpochReport, checkpoint: bytes) -> None:
        self.reports.append(report)
        self.checkpoints.append(checkpoint)

    def fit(
        self,
        module: nn.Module,
        stages: Sequence[Stage],
        *,
        resume: bytes | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        breathe: Callable[[], None] = lambda: None,
        on_epoch: Callable[[EpochReport, bytes], None] | None = None,
        live: LiveTeacher | None = None,
        validation_signals: dict[str, np.ndarray] | None = None,
        keep: Keep | None = None,
        **changed: Any,
    ) -> FitReport:
        return fit(
            module,
            stages,
            pools=self.pools,
            signals=self.signals,
            validation=self.validation,
            validation_signals=validation_signals or {},
            settings=replace(self.settings, **changed),
            on_epoch=on_epoch or self.keep,
            resume=resume,
            breathe=breathe,
            should_stop=should_stop,
            live=live,
            keep=keep,
        )


@pytest.fixture
def make_pool() -> Callable[..., TokenPool]:
    return pool_of


@pytest.fixture
def make_student() -> type[TinyStudent]:
    return TinyStudent


def problem_of(*, unlabelled: bool) -> Problem:
    pools = {"train": random_pool(90, seed=1, name="train")}
    if unlabelled:
        pools["unlabelled"] = random_pool(70, seed=2, name="unlabelled", labelled=False)
    rng = np.random.default_rng(3)
    shape = {name: (len(pool), len(LABELS)) for name, pool in pools.items()}
    return Problem(
        pools=pools,
        signals={TEACHER: {name: rng.normal(size=shape[name]).astype(np.float32) * 3 for name in pools}},
        validation=random_pool(40, seed=4, name="validation"),
        settings=FitSettings(
            learning_rate=1e-2, batch_size=16, seed=5, objective="accuracy", labels=LABELS, pad_id=0
        ),
    )


@pytest.fixture
def problem() -> Problem:
    return problem_of(unlabelled=False)


@pytest.fixture
def problem_with_unlabelled() -> Problem:
    return problem_of(unlabelled=True)


@dataclass
class Bench:
    """A problem, a kind of student (the teacher is one too), and what trains them."""

    problem: Problem
    kind: type[TinyStudent]

    def teacher(self, seed: int = 7) -> LiveTeacher:
        pools = {**self.problem.pools, "validation": self.problem.validation}
        return LiveTeacher(module=self.kind(seed=seed), pools=pools, pad_id=0)

    def run(
        self,
        stage: Stage,
        *,
        resume: bytes | None = None,
        seeds: tuple[int, int] = (0, 7),
        live: LiveTeacher | None = None,
        **changed: Any,
    ) -> tuple[FitReport, dict[str, Tensor], dict[str, Tensor]]:
        """The report, and the last weights of student and teacher."""
        student, teacher = self.kind(seed=seeds[0]), live or self.teacher(seeds[1])
        report = self.problem.fit(student, (stage,), resume=resume, live=teacher, **changed)
        return report, checkpoint.state_of(student), checkpoint.state_of(teacher.module)

    def record(self, epochs: int, **arguments: Any) -> Trajectory | None:
        joint = JointSpec(epochs=epochs, batch_size=16, learning_rate=2e-2)
        rest = {
            "joint": joint,
            "validation": self.problem.validation,
            "settings": self.problem.settings,
            "on_epoch": self.problem.keep,
            "resume": None,
            "breathe": lambda: None,
            "should_stop": lambda: False,
        }
        seed = arguments.pop("seed", 7)
        return record_trajectory(self.kind(seed=seed), self.problem.pools["train"], **{**rest, **arguments})


@pytest.fixture
def bench(problem: Problem) -> Bench:
    return Bench(problem, TinyStudent)
