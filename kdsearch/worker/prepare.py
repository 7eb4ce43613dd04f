"""Preparing a study under a lease: texts tokenised, teachers ready, their signals cached and audited.

Done once per study by whichever worker gets the lease; the others wait. Every step is found again
in the store by its content, so that whoever takes over from a dead holder repeats nothing that was
finished: a teacher goes on from its last anchor, signals from their last shard, a trajectory from its last
pass. Only what some trial of the study can ask for is prepared (`worker.wanted`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kdsearch.core.blobs import get_tree
from kdsearch.core.records import Latency, Scores
from kdsearch.data.dataset import load_saved
from kdsearch.data.prepared import TEACHER_VOCABULARY, Prepared, PreparedPool, RecordedTrajectory
from kdsearch.distill.stage import TEACHER, TRAJECTORY
from kdsearch.measure.profile import hardware_profile
from kdsearch.measure.quality import confusion, score
from kdsearch.store import preparations, studies
from kdsearch.store.preparations import PreparationLease
from kdsearch.teachers import source
from kdsearch.worker import measuring
from kdsearch.worker.context import WorkerContext
from kdsearch.worker.preparing import TEACHER_STEP, Preparing
from kdsearch.worker.pulse import Pulse
from kdsearch.worker.showing import put_validation_rows
from kdsearch.worker.signals import Arrays, Labeller
from kdsearch.worker.taught import Further, Historical, Stored, given_logits, historical, labeller
from kdsearch.worker.teacher import TeacherTrees, prepare_teacher, source_folder
from kdsearch.worker.trajectory import prepare_trajectory
from kdsearch.worker.vocabularies import built, prepare_tables, read_as
from kdsearch.worker.wanted import Wanted, study_setting, wanted


def prepare(context: WorkerContext, lease: PreparationLease, pulse: Pulse) -> None:
    """Prepare the study and record it; raises Stopped or LeaseLostError when it must let go."""
    torch.set_num_threads(context.options.prepare_threads)
    try:
        with tempfile.TemporaryDirectory(prefix="kdsearch-prepare-") as folder:
            preparing = Preparing(context, lease, pulse, Path(folder))
            sha256 = _Preparation(preparing).run().save(context.store.blobs)
    finally:
        torch.set_num_threads(context.options.threads)
    preparations.finish_preparation(context.store.engine, lease, sha256)


@dataclass(frozen=True)
class _Teacher:
    """The study's teacher and what it says."""

    logits: Arrays
    """Of the pools that somebody asks for, and of validation."""
    fingerprint: str
    labeller: Labeller | None
    """None where only its logits are given."""
    trees: TeacherTrees | None


class _Preparation:
    def __init__(self, preparing: Preparing) -> None:
        self.preparing, self.context = preparing, preparing.context
        preparing.say("reading texts")
        self.dataset = load_saved(self.context.store.blobs, self.context.inputs.dataset)
        self.origin = source_folder(self.context, self.dataset, preparing.folder / "source")
        self.own = read_as(preparing, self.dataset, source.load_tokenizer(self.origin), self.origin)

    def run(self) -> Prepared:
        """Everything, in an order in which the cheap mistakes come first."""
        trees = None if self.context.inputs.logits else self._trained()
        wants = self._wanted(trees)
        readings = {TEACHER_VOCABULARY: self.own, **built(self.preparing, self.dataset, self.own, wants)}
        start = self._start(trees, wants)
        tables = prepare_tables(self.preparing, readings, start, wants)
        teacher = self._teacher(trees, wants)
        signals = self._further(teacher, wants)
        past = historical(self.preparing, self.dataset, self.own, wants)
        trajectory = self._trajectory(start, wants)
        self._record_teacher(teacher, past)
        put_validation_rows(self.context, self.dataset, teacher.logits["validation"])
        return replace(
            self._manifest(teacher),
            teacher_start=trees.start if trees and wants.teacher_start else None,
            signals={**signals, **past.signals},
            historical=past.teachers,
            trajectory=trajectory,
            vocabularies={name: readings[name].store(self.preparing, name) for name in wants.vocabularies},
            tables=tables.arrays,
            oov_share=tables.oov_share,
            encoder=self.context.inputs.encoder if "checkpoint" in wants.encoders else None,
        )

    def _trained(self) -> TeacherTrees:
        with self.preparing.training() as breathe:
            return prepare_teacher(
                self.context,
                self.dataset,
                dict(self.own.pools),
                self.origin,
                unfinished=self.preparing.unfinished(TEACHER_STEP),
                keep=self.preparing.keeps(TEACHER_STEP),
                breathe=breathe,
                should_stop=self.preparing.should_stop,
                mention=self.preparing.mention,
            )

    def _start(self, trees: TeacherTrees | None, wants: Wanted) -> Path:
        """Folder of the teacher before fine-tuning, after any pretraining."""
        if trees is None or not wants.teacher_start:
            return self.origin
        return get_tree(self.context.store.blobs, trees.start, self.preparing.folder / "start")

    def _wanted(self, trees: TeacherTrees | None) -> Wanted:
        facts = self.context.inputs.facts
        setting = study_setting(
            self.context.spec,
            {name: len(pool) for name, pool in self.own.pools.items()},
            anchors=len(trees.anchors) if trees else 0,
            teacher_width=facts.teacher_width if facts else None,
        )
        return wanted(self.context.plan, setting)

    # ------------------------------------------------------------ what teachers say

    def _teacher(self, trees: TeacherTrees | None, wants: Wanted) -> _Teacher:
        names = ("validation", *wants.signals.get(TEACHER, ()))
        pools = {name: self.own.pools[name] for name in names}
        if trees is None:
            fingerprint = str(self.context.inputs.logits_fingerprint)
            return _Teacher(given_logits(self.preparing, pools), fingerprint, None, None)
        renamed = self.context.spec.teacher.label_map if self.context.inputs.teacher_classifies else None
        asked = labeller(self.preparing, self.dataset, trees.final, label_map=renamed)
        logits = asked.logits(pools, accuracy=trees.accuracy)
        return _Teacher(logits, source.fingerprint(asked.folder), asked, trees)

    def _further(self, teacher: _Teacher, wants: Wanted) -> Stored:
        if teacher.labeller is None or teacher.trees is None:
            return {}
        further = Further(self.preparing, self.dataset, self.own.pools, wants)
        layers = source.describe(teacher.labeller.folder).layers
        return {**further.hidden(teacher.labeller, layers), **further.anchors(teacher.trees)}

    def _trajectory(self, start: Path, wants: Wanted) -> RecordedTrajectory | None:
        if TRAJECTORY not in wants.signals:
            return None
        return prepare_trajectory(self.preparing, self.dataset, self.own.pools, start)

    # ------------------------------------------------------------ what is recorded

    def _record_teacher(self, teacher: _Teacher, past: Historical) -> None:
        scores: Scores = score(
            teacher.logits["validation"],
            self.own.pools["validation"].labels_N,
            labels=self.dataset.labels,
            objective=self.context.spec.objectives.quality,
            historical_NKC=past.validation.get("validation"),
        )
        latency = None if teacher.labeller is None else self._latency(teacher.labeller)
        counts = confusion(teacher.logits["validation"], self.own.pools["validation"].labels_N)
        studies.set_teacher(self.context.store.engine, self.context.study.id, scores, latency, counts)

    def _latency(self, teacher: Labeller) -> Latency:
        self.preparing.say("measuring the teacher")
        length, protocol = self.context.spec.teacher.max_length, self.context.spec.latency
        texts = self.dataset.pools["validation"].texts
        key = measuring.figure_key(
            f"teacher:{source.fingerprint(teacher.folder)}",
            hardware_profile(protocol),
            texts,
            max_length=length,
            tokenizer=source.tokenizer_fingerprint(teacher.folder),
            protocol=protocol,
        )
        encode = measuring.encoder(source.load_tokenizer(teacher.folder), length)
        return measuring.measure(self.context, teacher.module.cpu(), key=key, texts=texts, encode=encode)

    def _manifest(self, teacher: _Teacher) -> Prepared:
        """What every study has."""
        own, trees = self.own.store(self.preparing, TEACHER_VOCABULARY), teacher.trees
        return Prepared(
            labels=self.dataset.labels,
            tokenizer=own.tokenizer,
            teacher=trees.final if trees else None,
            teacher_fingerprint=teacher.fingerprint,
            max_length=self.context.spec.teacher.max_length,
            pad_id=own.pad_id,
            vocab_size=own.vocab_size,
            num_tokens=own.num_tokens,
            id_table=own.id_table,
            pools={
                name: PreparedPool(
                    tokens=own.tokens[name], logits=self._put_logits(teacher, name), num_rows=len(pool)
                )
                for name, pool in self.own.pools.items()
            },
            profile=hardware_profile(self.context.spec.latency),
            anchors=trees.anchors if trees else (),
            best=trees.best if trees else {},
            teacher_seconds=trees.seconds if trees else None,
        )

    def _put_logits(self, teacher: _Teacher, name: str) -> str | None:
        logits_NC = teacher.logits.get(name)
        return None if logits_NC is None else self.preparing.put_array(logits_NC)
