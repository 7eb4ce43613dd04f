"""What teachers say of a study's pools: the study's own, its anchors and layers, and the historical ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdsearch.core.blobs import get_tree
from kdsearch.core.errors import DataError
from kdsearch.core.specteacher import HistoricalSpec
from kdsearch.data.dataset import Dataset
from kdsearch.data.prepared import HistoricalTeacher
from kdsearch.data.tokens import TokenPool
from kdsearch.distill.stage import HISTORICAL, anchor_signal, hidden_signal
from kdsearch.measure.quality import score
from kdsearch.teachers import signals, source
from kdsearch.teachers.signals import Shard
from kdsearch.worker.preparing import Preparing
from kdsearch.worker.signals import Arrays, Labeller, stacked
from kdsearch.worker.teacher import TeacherTrees, prepare_historical
from kdsearch.worker.vocabularies import Reading, read_as
from kdsearch.worker.wanted import Wanted

Stored = dict[str, dict[str, str]]
"""Signal -> pool -> SHA-256 of its array."""


def labeller(
    preparing: Preparing,
    dataset: Dataset,
    tree: str,
    *,
    name: str = "teacher",
    label_map: Mapping[str, str] | None = None,
) -> Labeller:
    """A stored classifier, ready to answer."""
    folder = get_tree(preparing.context.store.blobs, tree, preparing.folder / f"classifier-{tree[:16]}")
    module = source.load_classifier(folder, dataset.labels, label_map=label_map)
    return Labeller(preparing, module.to(preparing.device), folder, name)


def given_logits(preparing: Preparing, pools: Mapping[str, TokenPool]) -> Arrays:
    """The logits that were given, row by row; DataError where a text has none."""
    inputs = preparing.context.inputs
    assert inputs.logits is not None, "asked for given logits of a study that has none"
    shard = Shard.load(preparing.context.store.blobs.open(inputs.logits))
    found: Arrays = {}
    for name, pool in pools.items():
        found[name], missing = signals.lookup([shard], pool)
        if len(missing):
            raise DataError(
                f"the given logits lack {len(missing)} texts of {name}",
                hint="create the study again with logits of all its texts",
            )
    return found


@dataclass(frozen=True)
class Further:
    """Signals of a teacher beside its logits, as far as some trial can ask for them."""

    preparing: Preparing
    dataset: Dataset
    pools: Mapping[str, TokenPool]
    wanted: Wanted

    def hidden(self, teacher: Labeller, layers: int) -> Stored:
        """Of every layer that can be asked for, of as many as the teacher has."""
        asked = [layer for layer in range(1, layers + 1) if hidden_signal(layer) in self.wanted.signals]
        if not asked:
            return {}
        names = {name for layer in asked for name in self.wanted.signals[hidden_signal(layer)]}
        found = teacher.hidden({name: self.pools[name] for name in sorted(names)}, asked)
        return {
            hidden_signal(layer): {
                name: self.preparing.put_array(found[name][:, position])
                for name in self.wanted.signals[hidden_signal(layer)]
            }
            for position, layer in enumerate(asked)
        }

    def anchors(self, trees: TeacherTrees) -> Stored:
        """Logits of each anchor that can be asked for."""
        return {
            signal: self._of_anchor(tree, number, self.wanted.signals[signal])
            for number, tree in enumerate(trees.anchors, start=1)
            if (signal := anchor_signal(number)) in self.wanted.signals
        }

    def _of_anchor(self, tree: str, number: int, names: tuple[str, ...]) -> dict[str, str]:
        teacher = labeller(self.preparing, self.dataset, tree, name=f"anchor {number}")
        found = teacher.logits({name: self.pools[name] for name in names})
        return {name: self.preparing.put_array(logits_NC) for name, logits_NC in found.items()}


# ---------------------------------------------------------------- historical teachers


@dataclass(frozen=True)
class Historical:
    """The study's `teachers`, and what they say."""

    teachers: tuple[HistoricalTeacher, ...]
    signals: Stored
    validation: Arrays
    """Logits (N, K, C) of the validation pool alone; empty without historical teachers."""


def historical(preparing: Preparing, dataset: Dataset, own: Reading, wanted: Wanted) -> Historical:
    """Every historical teacher, made or loaded, and its answers to validation and the pools asked for."""
    specs = preparing.context.spec.teachers
    if not specs:
        return Historical((), {}, {})
    names = ("validation", *wanted.signals.get(HISTORICAL, ()))
    answers, teachers = [], []
    for number, spec in enumerate(specs, start=1):
        made = _OneOfHistory(preparing, dataset, own, spec, number)
        answers.append(made.answers(names))
        teachers.append(made.described(answers[-1]))
    together = stacked(answers)
    stored = {name: preparing.put_array(logits_NKC) for name, logits_NKC in together.items()}
    return Historical(tuple(teachers), {HISTORICAL: stored}, {"validation": together["validation"]})


class _OneOfHistory:
    """One historical teacher."""

    def __init__(
        self, preparing: Preparing, dataset: Dataset, own: Reading, spec: HistoricalSpec, number: int
    ) -> None:
        self.preparing, self.dataset, self.own, self.spec = preparing, dataset, own, spec
        given = preparing.context.inputs.historical[number - 1]
        self.name = spec.model if spec.slice is None else f"slice {spec.slice.number}/{spec.slice.parts}"
        self.accuracy: float | None = None
        self.tree = given if given is not None else self._fine_tuned(number)
        called = f"historical teacher {number}"
        self.labeller = labeller(preparing, dataset, self.tree, name=called, label_map=spec.label_map)

    def _fine_tuned(self, number: int) -> str:
        step = f"historical {number}"
        with self.preparing.training() as breathe:
            trees = prepare_historical(
                self.preparing.context,
                self.dataset,
                self.own.pools,
                self.own.folder,
                self.spec,
                unfinished=self.preparing.unfinished(step),
                keep=self.preparing.keeps(step),
                breathe=breathe,
                should_stop=self.preparing.should_stop,
                mention=self.preparing.mention,
            )
        self.accuracy = trees.accuracy
        return trees.final

    def answers(self, names: tuple[str, ...]) -> Arrays:
        """Its logits of some pools, read with its own tokenizer."""
        pools = self.own.pools
        own = source.tokenizer_fingerprint(self.own.folder)
        if source.tokenizer_fingerprint(self.labeller.folder) != own:
            tokenizer = source.load_tokenizer(self.labeller.folder)
            pools = read_as(self.preparing, self.dataset, tokenizer, self.labeller.folder, of=names).pools
        return self.labeller.logits({name: pools[name] for name in names}, accuracy=self.accuracy)

    def described(self, answers: Arrays) -> HistoricalTeacher:
        """As the manifest names it."""
        scores = score(
            answers["validation"],
            self.own.pools["validation"].labels_N,
            labels=self.dataset.labels,
            objective=self.preparing.context.spec.objectives.quality,
        )
        return HistoricalTeacher(
            name=str(self.name), weight=self.spec.weight, teacher=self.tree, scores=scores
        )
