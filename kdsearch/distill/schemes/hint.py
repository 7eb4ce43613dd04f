"""Hints (FitNets, Romero et al. 2015): first the teacher's hidden vectors, then its logits.

Notable: the hint epochs count: a trial with hints sees as many rows as its controls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from kdsearch.core.facts import Facts
from kdsearch.core.space import Choice, Fixed, Param, Space
from kdsearch.distill import losses
from kdsearch.distill.parameters import up_to
from kdsearch.distill.stage import Refusal, Setting, Stage, Term, hidden_signal, without_teacher
from kdsearch.distill.stored import StoredLogits


@dataclass(frozen=True, kw_only=True)
class Hint(StoredLogits):
    """Mean over dimensions of (r(h_S) - h_T)², r linear and learned; then `offline`."""

    hint_epochs: int
    layer: int
    """Of the teacher, from 1."""

    NAME: ClassVar[str] = "hint"
    SPACE: ClassVar[Space] = {
        "hint_epochs": Param(
            kind="int", default=Fixed(1), low=1, high=9999, doc="of the trial's epochs, before the others"
        ),
        "layer": Param(kind="int", default=Fixed(1), low=1, high=1000, doc="the teacher's, from 1"),
        **StoredLogits.SPACE,
    }

    @classmethod
    def space(cls, facts: Facts) -> Space:
        """Up to half of the epochs by default; the middle layer (as in FitNets) and the last one."""
        space, depth = dict(super().space(facts)), facts.teacher_layers or 1
        layers = Choice(tuple(sorted({(depth + 1) // 2, depth})))
        space["layer"] = replace(space["layer"], high=depth, default=layers)
        hint_epochs = replace(
            space["hint_epochs"], high=max(1, facts.epochs - 1), default=up_to(facts.epochs // 2)
        )
        return {**space, "hint_epochs": hint_epochs}

    @classmethod
    def refusal(cls, facts: Facts) -> Refusal | None:
        """There must be hidden vectors, and an epoch left for the logits."""
        if facts.trainable_teacher and facts.epochs < 2:
            return Refusal(
                f"the scheme {cls.NAME} trains in two stages, and a trial has {facts.epochs} epoch",
                "training: {epochs: 2} or more",
            )
        return without_teacher(
            facts,
            f"the scheme {cls.NAME} learns from the teacher's hidden vectors, and only its logits are given",
        )

    def stages(self, setting: Setting) -> tuple[Stage, ...]:
        """The hidden vectors, not scored, since no classifier is trained; then the logits."""
        if not 1 <= self.hint_epochs < setting.epochs:
            raise ValueError(f"{self.hint_epochs} hint epochs of {setting.epochs} epochs")
        hints = self.stage(
            setting, name="hint", terms=(self._term(setting),), epochs=self.hint_epochs, scored=False
        )
        return hints, self.distil(setting, epochs=setting.epochs - self.hint_epochs)

    def _term(self, setting: Setting) -> Term:
        signal, regressor = hidden_signal(self.layer), _regressor(setting)
        return Term(
            name="hint",
            weight=1.0,
            loss=lambda seen: losses.hint(regressor(seen.hidden_BD.float()), seen.signals[signal].detach()),
            needs=(signal,),
            learned=regressor,
        )


def _regressor(setting: Setting) -> nn.Linear:
    if setting.student_width < 1 or setting.teacher_width < 1:
        raise ValueError(f"no hint from width {setting.teacher_width} to width {setting.student_width}")
    with torch.random.fork_rng(devices=[]):
        # The CPU's alone: torch.manual_seed would move CUDA's too, and the fork would not bring it back.
        torch.default_generator.manual_seed(setting.seed)
        return nn.Linear(setting.student_width, setting.teacher_width)
