"""What a study's trials can ask for: signals, vocabularies, tables. Only that is prepared.

Found by asking: every scheme is built with every combination of its parameters that the study leaves open,
and says what its stages need; every student says what it wants. No scheme or student is known by name here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdsearch.core.space import Dimension, Param, Range, Scalar, Space
from kdsearch.core.spec import StudySpec
from kdsearch.data.prepared import TEACHER_VOCABULARY, TRAINING_POOLS
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import TRAJECTORY, Setting
from kdsearch.search.plan import Plan
from kdsearch.students.base import Wants
from kdsearch.students.building import wants

MOST_INTEGERS = 256
"""A longer range of integers is asked at its ends alone."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Everything that some trial of the study may need."""

    signals: Mapping[str, tuple[str, ...]]
    """Signal -> the pools that it is needed of, of those that are trained on."""
    live_teacher: bool
    """Whether a scheme trains the teacher beside the student."""
    vocabularies: tuple[str, ...]
    """Beside the teacher's own."""
    tables: tuple[str, ...]
    """As `Prepared.tables` names them."""
    encoders: tuple[str, ...]
    """``teacher`` and ``checkpoint``, where a student may begin with layers of these."""

    @property
    def begun_with_teacher(self) -> bool:
        """Whether a student may begin with the teacher's word vectors or layers."""
        return "teacher" in self.encoders or "teacher" in self.tables

    @property
    def teacher_start(self) -> bool:
        """Whether the teacher before fine-tuning is needed after it: to be trained anew, or to begin with."""
        return self.live_teacher or TRAJECTORY in self.signals or self.begun_with_teacher


def study_setting(
    spec: StudySpec, rows: Mapping[str, int], *, anchors: int, teacher_width: int | None
) -> Setting:
    """What a study offers to the schemes of all its trials; `rows` counts those of each pool."""
    pools = tuple(name for name in TRAINING_POOLS if name in rows)
    return Setting(
        epochs=spec.training.epochs,
        pools=pools,
        rows_per_epoch=spec.training.rows_per_epoch or sum(rows[name] for name in pools),
        anchors=anchors,
        historical_weights=tuple(teacher.weight for teacher in spec.teachers),
        teacher_width=teacher_width or 0,
        joint=spec.teacher.joint,
        seed=spec.training.seed,
    )


def wanted(plan: Plan, setting: Setting) -> Wanted:
    """What the schemes and students of a plan need; of `setting` the study's part counts alone."""
    # Of any width: what a term learns is not looked at.
    signals, live = _of_schemes(plan, replace(setting, student_width=1, teacher_width=1))
    asked = _of_students(plan)
    vocabularies = {wants.vocabulary for wants in asked} - {TEACHER_VOCABULARY}
    return Wanted(
        signals={name: tuple(p for p in setting.pools if p in pools) for name, pools in signals.items()},
        live_teacher=live,
        vocabularies=tuple(sorted(vocabularies)),
        tables=tuple(sorted({table for wants in asked if (table := table_name(wants))})),
        encoders=tuple(sorted({wants.encoder for wants in asked if wants.encoder})),
    )


def table_name(wants: Wants) -> str | None:
    """The table of `Prepared.tables` that a student starts from; None where its vectors are random."""
    if wants.embedding == "vectors":
        return f"vectors/{wants.vocabulary}"
    return "teacher" if wants.embedding == "teacher" else None


def _of_schemes(plan: Plan, setting: Setting) -> tuple[dict[str, set[str]], bool]:
    signals: dict[str, set[str]] = {}
    live = False
    for name, narrowed in plan.schemes.items():
        for params in _combinations(plan.spaces.schemes[name], narrowed, _asked_of_scheme):
            for stage in build_scheme(name, params).stages(setting):
                live = live or stage.joint is not None
                for need in stage.needs:
                    signals.setdefault(need, set()).update(stage.pools)
    return signals, live


def _of_students(plan: Plan) -> set[Wants]:
    return {
        wants(name, params)
        for name, narrowed in plan.students.items()
        for params in _combinations(plan.spaces.students[name], narrowed, _asked_of_student)
    }


def _combinations(
    space: Space,
    narrowed: Mapping[str, Dimension],
    asked: Callable[[Param, Dimension], Sequence[Scalar]],
) -> Iterator[dict[str, Scalar]]:
    """Every combination of values of the parameters that exist beside each other."""
    found: list[dict[str, Scalar]] = [{}]
    for name, param in space.items():
        values = asked(param, param.narrow(narrowed.get(name, param.default)))
        found = [
            more
            for known in found
            for more in ([{**known, name: v} for v in values] if param.exists(known) else [known])
        ]
    yield from found


def _asked_of_scheme(param: Param, dimension: Dimension) -> Sequence[Scalar]:
    """All values that are counted, and the ends of those that are measured: a weight may be 0 there."""
    if param.kind == "float":
        numbers = [value for value in dimension.values() if isinstance(value, (int, float))]
        return sorted({min(numbers), max(numbers)})
    if isinstance(dimension, Range) and dimension.high - dimension.low <= MOST_INTEGERS:
        return range(int(dimension.low), int(dimension.high) + 1, int(dimension.step or 1))
    return dimension.values()


def _asked_of_student(param: Param, dimension: Dimension) -> Sequence[Scalar]:
    """Names decide what a student starts from, sizes do not."""
    values = dimension.values()
    return values if param.kind in ("str", "bool") else values[:1]
