"""What a study will cost, before anything is spent: read its texts, probe this machine, multiply.

Nothing is stored. Every figure is a count, a rate measured by `worker.probing`, or an assumption of ASSUMED.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kdsearch.core.errors import KdsearchError
from kdsearch.core.studyfile import StudyFile
from kdsearch.data.dataset import Dataset
from kdsearch.distill.schemes import build_scheme
from kdsearch.distill.stage import Setting
from kdsearch.search.size import SpaceSize, space_size
from kdsearch.students.base import InputShape
from kdsearch.teachers import build, source
from kdsearch.worker import probing
from kdsearch.worker.create import Progress, ReadStudy, read_study
from kdsearch.worker.probing import Rates
from kdsearch.worker.wanted import study_setting

SAMPLE = 2000
"""Training texts that are tokenised to know their lengths."""
WORD_PIECES = 1.3
"""Tokens for each word, where the tokenizer is made later."""
CHINESE = re.compile(r"[\u4e00-\u9fff]")
CLAIM_S = 3.0
"""What a trial costs beside training and measuring: proposing, ONNX export, checkpoints, delivery."""
ASSUMED = (
    "every student and scheme is tried equally often, with parameters in the middle of their ranges",
    "no trial is stopped early or rejected; those that are make it cheaper",
    f"{CLAIM_S:g} s a trial for proposing, exporting to ONNX and storing",
    "this machine, idle but for one worker; more workers share what preparing costs, and its cores",
    "each complete trial keeps its student and its validation logits",
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One type of student, in the middle of its ranges."""

    name: str
    rates: Rates | None
    trial_s: float | None
    """Of one trial, mean over the schemes; None where it could not be probed."""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Counts, rates and what follows from them."""

    rows: Mapping[str, int]
    num_labels: int
    mean_tokens: float
    space: SpaceSize
    first_trials: int
    trials: int
    repeats: int
    """At most so many further trainings of finalists."""
    teacher: Rates | None
    """None for given logits, which nobody computes."""
    training_s: float
    """Of the teacher, and of historical ones."""
    caching_s: float
    """Its answers for every pool that a scheme reads them of."""
    kinds: tuple[Kind, ...]
    trials_s: float
    prepared_mb: float
    students_mb: float
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """Of one worker."""
        return self.training_s + self.caching_s + self.trials_s

    @property
    def disk_mb(self) -> float:
        """Of the artifact store."""
        return self.prepared_mb + self.students_mb


def estimate(file: StudyFile, *, device: str, threads: int, on_progress: Progress) -> Estimate:
    """Read the study's texts and teacher, and probe; StudyFileError and DataError as creating it would."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        study = read_study(file, on_progress)
        return _Estimator(study, device, threads, on_progress).made()
    finally:
        torch.set_num_threads(before)


def _foreseen_tokens(text: str) -> float:
    """Word pieces of a word, one for each Chinese character, and two at the ends."""
    return WORD_PIECES * len(CHINESE.sub(" ", text).split()) + len(CHINESE.findall(text)) + 2


class _Estimator:
    """One estimate in the making."""

    def __init__(self, study: ReadStudy, device: str, threads: int, say: Progress) -> None:
        self.study, self.spec, self.device, self.threads, self.say = (
            study,
            study.file.spec,
            device,
            threads,
            say,
        )
        self.dataset: Dataset = study.dataset
        self.rows = {name: len(pool) for name, pool in self.dataset.pools.items()}
        self.length, self.vocab_size, self.num_tokens = self._tokens()
        self.plan = study.plan
        self.setting: Setting = study_setting(
            self.spec, self.rows, anchors=study.facts.anchors, teacher_width=study.facts.teacher_width
        )

    def made(self) -> Estimate:
        teacher = self._teacher()
        kinds = tuple(self._kinds(teacher))
        known = [kind.trial_s for kind in kinds if kind.trial_s is not None]
        trial_s = sum(known) / len(known) if known else 0.0
        finalists = self.spec.finalists
        repeats = 0 if finalists is None else (finalists.max + len(kinds)) * len(finalists.seeds)
        sizes = [kind.rates.size_mb for kind in kinds if kind.rates is not None]
        logits_mb = 4 * len(self.dataset.labels) * self.rows["validation"] / 1e6
        trials = self.spec.budget.trials + repeats
        return Estimate(
            rows=self.rows,
            num_labels=len(self.dataset.labels),
            mean_tokens=self.length,
            space=space_size(self.plan),
            first_trials=len(self.plan.first_trials()),
            trials=self.spec.budget.trials,
            repeats=repeats,
            teacher=teacher,
            training_s=0.0 if teacher is None else self._training_s(teacher),
            caching_s=0.0 if teacher is None else self._cached_rows() / teacher.reading,
            kinds=kinds,
            trials_s=trials * trial_s,
            prepared_mb=self._prepared_mb(teacher),
            students_mb=trials * ((sum(sizes) / len(sizes) if sizes else 0.0) + logits_mb),
            device=self.device,
            threads=self.threads,
        )

    # ------------------------------------------------ texts

    def _tokens(self) -> tuple[float, int, int]:
        """Mean length, ids of the tokenizer, and how many of them occur in the sample."""
        texts, teacher = self.dataset.pools["train"].texts[:SAMPLE], self.study.offered.teacher
        most = self.spec.teacher.max_length
        if teacher.folder is None:
            built = self.spec.teacher.build
            words = [min(most, _foreseen_tokens(text)) for text in texts]
            size = 4000 if built is None else built.vocab_size
            return sum(words) / len(words), size, size
        tokenizer = source.load_tokenizer(teacher.folder)
        ids = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
        seen = len({token for row in ids for token in row})
        return sum(map(len, ids)) / len(ids), len(tokenizer), max(2, seen)

    # ------------------------------------------------ the teacher

    def _teacher(self) -> Rates | None:
        if self.spec.teacher.logits is not None:
            return None
        self.say("probing the teacher")
        with tempfile.TemporaryDirectory(prefix="kdsearch-plan-") as folder:
            module = self._teacher_module(Path(folder))
        return probing.rates(
            module,
            vocab_size=self.vocab_size,
            length=round(self.length),
            num_labels=len(self.dataset.labels),
            device=self.device,
        )

    def _teacher_module(self, folder: Path) -> nn.Module:
        spec, given, labels = self.spec.teacher, self.study.offered.teacher, self.dataset.labels
        if given.classifies and given.folder is not None:
            return source.load_classifier(given.folder, labels, label_map=spec.label_map)
        if given.folder is None and spec.build is not None:
            texts = self.dataset.pools["train"].texts[:SAMPLE]
            build.build_teacher(spec.build, texts, labels, max_length=spec.max_length, seed=0, folder=folder)
            self.vocab_size = len(source.load_tokenizer(folder))
        module = source.load_encoder_for(given.folder or folder, labels, seed=0)
        if spec.finetune is not None and spec.finetune.layers != "all":
            source.freeze_all_but_last(module, spec.finetune.layers.last)
        return module

    def _training_s(self, teacher: Rates) -> float:
        spec, labelled = self.spec.teacher, self.rows["train"]
        learned = 0.0
        if spec.finetune is not None:
            parts = [1.0] + [1.0 / t.slice.parts for t in self.spec.teachers if t.slice is not None]
            learned += spec.finetune.epochs * labelled * sum(parts)
        if spec.pretrain is not None:
            texts = sum(self.rows.get(name, 0) for name in ("train", "unlabelled"))
            learned += spec.pretrain.epochs * texts
        if "trajectory" in self.study.wanted.signals:
            learned += spec.joint.epochs * labelled
        scored = 0 if spec.finetune is None else max(spec.finetune.epochs, spec.finetune.anchors)
        return learned / teacher.learning + scored * self.rows["validation"] / teacher.reading

    def _cached_rows(self) -> int:
        """Rows that some teacher answers for, validation included."""
        historical = max(1, len(self.spec.teachers))
        asked = self.rows["validation"] * (1 + len(self.spec.teachers))
        for signal, pools in self.study.wanted.signals.items():
            rows = sum(self.rows[name] for name in pools)
            asked += rows * (historical if signal == "historical" else 0 if signal == "trajectory" else 1)
        return asked

    def _prepared_mb(self, teacher: Rates | None) -> float:
        """Texts, teachers and signals as they are stored."""
        texts = sum(len(text.encode()) for pool in self.dataset.pools.values() for text in pool.texts)
        answers = 4 * len(self.dataset.labels) * self._cached_rows()
        finetune = self.spec.teacher.finetune
        copies = 1 + (finetune.anchors if finetune is not None else 0)
        return (texts + answers) / 1e6 + copies * (teacher.size_mb if teacher is not None else 0.0)

    # ------------------------------------------------ students

    def _kinds(self, teacher: Rates | None) -> Iterator[Kind]:
        shape = InputShape(
            vocab_size=max(self.vocab_size, self.num_tokens),
            num_tokens=self.num_tokens,
            num_labels=len(self.dataset.labels),
            max_length=self.spec.teacher.max_length,
            pad_id=0,
            embedding_width=self.study.offered.vector_width or 0,
        )
        for name, narrowed in self.plan.students.items():
            self.say(f"probing {name}")
            params = probing.middle(self.plan.spaces.students[name], narrowed)
            try:
                found = probing.student_rates(
                    name, params, shape, length=round(self.length), device=self.device
                )
            except (KdsearchError, ValueError) as error:  # it starts from an encoder that is made ready later
                yield Kind(name=name, rates=None, trial_s=None, why=str(error))
                continue
            yield Kind(name=name, rates=found, trial_s=self._trial_s(found, teacher))

    def _trial_s(self, student: Rates, teacher: Rates | None) -> float:
        """Mean over the schemes: a teacher that is trained beside the student learns at its own pace."""
        spec = self.spec
        rows = spec.training.epochs * self.setting.rows_per_epoch
        scored = spec.training.epochs * self.rows["validation"] / student.reading
        live = [self._live(name) for name in self.plan.schemes]
        beside = sum(live) / len(live) * rows / teacher.learning if teacher is not None else 0.0
        measured = spec.latency.min_seconds + spec.latency.warmup * 0.01
        return rows / student.learning + beside + scored + measured + CLAIM_S

    def _live(self, name: str) -> bool:
        params = probing.middle(self.plan.spaces.schemes[name], self.plan.schemes[name])
        setting = replace(self.setting, student_width=1, teacher_width=1)  # of any width
        stages = build_scheme(name, params).stages(setting)
        return any(stage.joint is not None for stage in stages)
