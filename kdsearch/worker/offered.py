"""What a study file offers, as found on the machine that creates the study: teachers, vectors, an encoder.

Nothing is trained or stored here; what cannot be is a StudyFileError or DataError before anything is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import DataError
from kdsearch.core.facts import Facts
from kdsearch.core.studyfile import StudyFile
from kdsearch.data import augment, vectors
from kdsearch.data.dataset import Dataset
from kdsearch.data.prepared import TRAINING_POOLS
from kdsearch.students.encoder import encoder_shape
from kdsearch.teachers import build, given, source
from kdsearch.teachers.source import TeacherSource


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The study's teacher, before anybody fine-tunes it."""

    folder: Path | None
    """None where it is built from a configuration."""
    classifies: bool
    """Whether it is used as it is."""
    labels: tuple[str, ...] | None
    """In the order of its logits; None unless it classifies already."""
    fingerprint: str
    width: int | None
    layers: int | None
    bert: bool
    logits: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Offered:
    """All that a study starts from beside its texts."""

    teacher: Teacher
    historical: tuple[Path | None, ...]
    """Folder of each of `teachers`; None where it is fine-tuned here."""
    vectors: Path | None
    vector_width: int | None
    encoder: Path | None
    encoder_layers: int | None
    fingerprints: tuple[str, ...]
    """Of everything but the teacher, in a fixed order; empty where there is nothing."""

    def facts(self, file: StudyFile, dataset: Dataset) -> Facts:
        """What students and schemes can be asked for."""
        spec, teacher = file.spec, self.teacher
        return Facts(
            num_labels=len(dataset.labels),
            pools=tuple(name for name in TRAINING_POOLS if name in dataset.pools),
            epochs=spec.training.epochs,
            anchors=spec.teacher.finetune.anchors if spec.teacher.finetune else 0,
            num_historical=len(spec.teachers),
            teacher_width=teacher.width,
            teacher_layers=teacher.layers,
            bert_teacher=teacher.bert,
            vector_width=self.vector_width,
            encoder_layers=self.encoder_layers,
        )

    def data_fingerprint(self, dataset: Dataset) -> str:
        """Of the texts and of all beside them: the same paths must hold the same when a study is resumed."""
        own = f"{dataset.fingerprint}:{self.teacher.fingerprint}"
        return f"{own}:{sha256_of(self.fingerprints)}" if self.fingerprints else own


def look(file: StudyFile) -> Offered:
    """Find and check everything that a file names."""
    spec, found = file.spec, []
    teacher = _given_logits(file) if spec.teacher.logits is not None else _teacher(file)
    historical = tuple(_historical(file, i) for i in range(len(spec.teachers)))
    found += [source.fingerprint(folder) for folder in historical if folder is not None]
    path = None if spec.pretrained.vectors is None else _file(file.base, spec.pretrained.vectors)
    if path is not None:
        found.append(given.fingerprint(path))
    encoder, layers = _encoder(file, teacher)
    if encoder is not None:
        found.append(source.fingerprint(encoder))
    return Offered(
        teacher=teacher,
        historical=historical,
        vectors=path,
        vector_width=None if path is None else vectors.vector_width(path),
        encoder=encoder,
        encoder_layers=layers,
        fingerprints=tuple(found),
    )


def _file(base: Path, name: str) -> Path:
    return base / Path(name).expanduser()


# ---------------------------------------------------------------- the teacher


def _teacher(file: StudyFile) -> Teacher:
    spec = file.spec.teacher
    if spec.model is None:  # built later, and always fine-tuned
        built = spec.build
        assert built is not None, "a teacher has either `model` or `build`"
        return Teacher(
            folder=None,
            classifies=False,
            labels=None,
            fingerprint="",
            width=built.hidden,
            layers=built.layers,
            bert=True,
        )
    folder = source.resolve(spec.model, file.base)
    found = source.describe(folder)
    _check_teacher(file, found)
    classifies = spec.finetune is None
    labels = class_names(found, spec.model, spec.label_map) if classifies else None
    return Teacher(
        folder=folder,
        classifies=classifies,
        labels=labels,
        fingerprint=found.fingerprint,
        width=found.width,
        layers=found.layers,
        bert=found.bert,
    )


def _given_logits(file: StudyFile) -> Teacher:
    """Of a teacher that cannot run here there is a tokenizer, and what it said."""
    spec = file.spec.teacher
    folder = None if spec.model is None else source.resolve(spec.model, file.base)
    tokens = ""
    if folder is not None:
        source.load_tokenizer(folder)
        tokens = source.tokenizer_fingerprint(folder)
    path = _file(file.base, str(spec.logits))
    return Teacher(
        folder=folder,
        classifies=False,
        labels=None,
        fingerprint=sha256_of([tokens, given.fingerprint(path)]),
        width=None,
        layers=None,
        bert=False,
        logits=path,
    )


def _check_teacher(file: StudyFile, found: TeacherSource) -> None:
    spec = file.spec.teacher
    if spec.finetune is None and not found.classifies:
        raise file.mistake(
            ("teacher",), f"{spec.model} is not a classifier", "`finetune: {epochs: 2}` under teacher"
        )
    if spec.finetune is not None and found.classifies and not spec.finetune.force:
        raise file.mistake(
            ("teacher", "finetune"),
            f"{spec.model} classifies already",
            "no `finetune`, or `finetune: {force: true}` to train it all the same",
        )
    if found.max_tokens is not None and spec.max_length > found.max_tokens:
        raise file.mistake(
            ("teacher", "max_length"),
            f"{spec.model} reads {found.max_tokens} tokens, not {spec.max_length}",
            f"at most {found.max_tokens}",
        )


def class_names(found: TeacherSource, model: str, label_map: Any) -> tuple[str, ...]:
    """The data's names of a classifier's classes, in the order of its logits."""
    own = found.labels or tuple(f"LABEL_{i}" for i in range(found.num_labels or 0))
    if found.labels is None and not set(own) <= set(label_map or {}):
        raise DataError(
            f"teacher {model} names its classes {own[0]}, {own[1]}, ...: which is which?",
            hint="say so: `teacher: {label_map: {LABEL_0: <label>, LABEL_1: <label>}}`",
        )
    return source.renamed(own, label_map, where=model)


def mask_token(file: StudyFile, teacher: Teacher) -> str | None:
    """The token that stands for a masked word of augmented texts; None where nothing is augmented."""
    spec = file.spec
    if spec.data.augmented is None:
        return None
    if teacher.folder is not None:
        return augment.stand_in(source.load_tokenizer(teacher.folder), spec.data.augmented)
    known = {token: i for i, token in enumerate(build.SPECIAL)}  # the rest is learned from the texts, later
    tokenizer = build.word_piece_tokenizer(known, max_length=spec.teacher.max_length)
    return augment.stand_in(tokenizer, spec.data.augmented)


# ---------------------------------------------------------------- what is beside it


def _historical(file: StudyFile, number: int) -> Path | None:
    spec, length = file.spec.teachers[number], file.spec.teacher.max_length
    if spec.model is None:
        return None
    folder = source.resolve(spec.model, file.base, key=f"teachers[{number}].model")
    found = source.describe(folder)
    path = ("teachers", number, "model")
    if not found.classifies:
        raise file.mistake(path, f"{spec.model} is not a classifier", "a classifier, or `slice: 1/3`")
    if found.max_tokens is not None and length > found.max_tokens:
        message = f"{spec.model} reads {found.max_tokens} tokens, not {length}"
        raise file.mistake(path, message, f"`max_length` of at most {found.max_tokens} under teacher")
    return folder


def check_historical(file: StudyFile, offered: Offered, dataset: Dataset) -> None:
    """DataError unless every historical classifier has the data's labels, one to one."""
    for spec, folder in zip(file.spec.teachers, offered.historical, strict=True):
        if folder is not None and spec.model is not None:
            own = class_names(source.describe(folder), spec.model, spec.label_map)
            source.label_order(own, dataset.labels, label_map=None, where=spec.model)


def _encoder(file: StudyFile, teacher: Teacher) -> tuple[Path | None, int | None]:
    name, path = file.spec.pretrained.encoder, ("pretrained", "encoder")
    if name is None:
        return None, None
    folder = source.resolve(name, file.base, key="pretrained.encoder")
    shape = encoder_shape(folder)
    if file.spec.teacher.max_length > shape.max_positions:
        message = f"{name} reads {shape.max_positions} tokens, not {file.spec.teacher.max_length}"
        raise file.mistake(path, message, f"`max_length` of at most {shape.max_positions} under teacher")
    if teacher.folder is None or _vocabulary(folder) != _vocabulary(teacher.folder):
        raise file.mistake(
            path,
            f"{name} does not read the tokens of the teacher",
            "an encoder with the teacher's vocabulary",
        )
    return folder, shape.layers


def _vocabulary(folder: Path) -> dict[str, int]:
    tokens: dict[str, int] = source.load_tokenizer(folder).get_vocab()
    return tokens
