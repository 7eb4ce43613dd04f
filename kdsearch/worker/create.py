"""Create a study from a file, or find the one that the same file made before."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kdsearch.core.blobs import put_tree
from kdsearch.core.errors import ConflictError, DataError, NotFoundError
from kdsearch.core.specteacher import TeacherSpec
from kdsearch.core.studyfile import StudyFile, spec_to_json
from kdsearch.data.dataset import Dataset, load_dataset, save_dataset
from kdsearch.data.inputs import TEACHER_FILES, Inputs
from kdsearch.search.asking import Search
from kdsearch.search.plan import Plan
from kdsearch.store import studies
from kdsearch.store.connect import Store
from kdsearch.store.migrate import one_at_a_time
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import NewStudy, StudyRecord
from kdsearch.teachers import source

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Teacher:
    folder: Path | None
    classifies: bool
    labels: tuple[str, ...] | None
    fingerprint: str


def create(store: Store, file: StudyFile, *, on_progress: Progress) -> StudyRecord:
    """Store the texts, the teacher and the study.

    Raises ConflictError if the name is taken, DataError and StudyFileError for what cannot be.
    """
    _refuse_taken(store, file.spec.name)
    teacher = _look_at_teacher(file)
    dataset = _read(file, teacher, on_progress)
    return _store(store, file, teacher, dataset, on_progress)


def create_or_resume(store: Store, file: StudyFile, *, on_progress: Progress) -> StudyRecord:
    """The study of this name: created, or resumed where the file and the data are the same.

    Raises ConflictError with the difference where they are not; a changed budget is taken over.
    """
    try:
        record = studies.find_study(store.engine, file.spec.name)
    except NotFoundError:
        try:
            return create(store, file, on_progress=on_progress)
        except ConflictError:  # another process created it meanwhile
            record = studies.find_study(store.engine, file.spec.name)
    return _resume(store, file, record)


def _resume(store: Store, file: StudyFile, record: StudyRecord) -> StudyRecord:
    if record.spec_sha256 != file.sha256:
        raise ConflictError(
            f"study {record.name!r} was created from another file:\n{difference(record, file)}",
            hint="undo the change, or give the file another `name:`; only `budget` may change",
        )
    teacher = _look_at_teacher(file)
    if record.data_fingerprint != _fingerprint(_read(file, teacher, lambda _: None), teacher):
        raise ConflictError(
            f"study {record.name!r} was created from other texts or another teacher under the same paths",
            hint="restore them, or give the file another `name:`",
        )
    studies.reopen(store.engine, record.id)
    studies.raise_budget(store.engine, record.id, file.spec.budget)
    storage = optuna_storage(store)
    with one_at_a_time(store.engine):  # a larger budget may hold more of the first trials
        Search.create(storage, record.optuna_name, Plan(file.spec))
    return studies.find_study(store.engine, record.name)


def difference(record: StudyRecord, file: StudyFile) -> str:
    """The stored study file against this one, as a unified diff."""
    lines = difflib.unified_diff(
        record.spec_text.splitlines(), file.text.splitlines(), "stored", str(file.path), lineterm="", n=1
    )
    return "\n".join(lines)


def _refuse_taken(store: Store, name: str) -> None:
    try:
        studies.find_study(store.engine, name)
    except NotFoundError:
        return
    raise ConflictError(
        f"study {name!r} exists already",
        hint=f"see `kdsearch study show {name}`; `kdsearch run FILE` resumes it; or choose another `name:`",
    )


def _look_at_teacher(file: StudyFile) -> _Teacher:
    spec = file.spec.teacher
    if spec.model is None:  # built later, and always fine-tuned
        return _Teacher(None, classifies=False, labels=None, fingerprint="")
    folder = source.resolve(spec.model, file.base)
    found = source.describe(folder)
    _check_teacher(file, found)
    classifies = spec.finetune is None
    labels = _class_names(found, spec) if classifies else None
    return _Teacher(folder, classifies=classifies, labels=labels, fingerprint=found.fingerprint)


def _check_teacher(file: StudyFile, found: source.TeacherSource) -> None:
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


def _class_names(found: source.TeacherSource, spec: TeacherSpec) -> tuple[str, ...]:
    """The data's names of the teacher's classes, in the order of its logits."""
    own = found.labels or tuple(f"LABEL_{i}" for i in range(found.num_labels or 0))
    if found.labels is None and not set(own) <= set(spec.label_map or {}):
        raise DataError(
            f"teacher {spec.model} names its classes {own[0]}, {own[1]}, ...: which is which?",
            hint="say so: `teacher: {label_map: {LABEL_0: <label>, LABEL_1: <label>}}`",
        )
    return source.renamed(own, spec.label_map, where=str(spec.model))


def _read(file: StudyFile, teacher: _Teacher, on_progress: Progress) -> Dataset:
    dataset = load_dataset(file.spec.data, base=file.base, teacher_labels=teacher.labels)
    for warning in dataset.warnings:
        on_progress(f"warning: {warning}")
    _check_objective(file, dataset)
    return dataset


def _check_objective(file: StudyFile, dataset: Dataset) -> None:
    quality, found = file.spec.objectives.quality, set(dataset.pools["validation"].labels_N.tolist())
    _, colon, label = quality.partition(":")
    present = [name for i, name in enumerate(dataset.labels) if i in found]
    if not colon or label in present:
        return
    message = f"{quality!r} names a label that the data does not have"
    if label in dataset.labels:
        message = f"{quality!r} is 0 for every student: no validation row has the label"
    raise file.mistake(("objectives", "quality"), message, "one of " + ", ".join(present))


def _fingerprint(dataset: Dataset, teacher: _Teacher) -> str:
    return f"{dataset.fingerprint}:{teacher.fingerprint}"


def _store(
    store: Store, file: StudyFile, teacher: _Teacher, dataset: Dataset, on_progress: Progress
) -> StudyRecord:
    on_progress("storing texts and teacher")
    tree = None if teacher.folder is None else put_tree(store.blobs, teacher.folder, only=TEACHER_FILES)
    inputs = Inputs(
        dataset=save_dataset(dataset, store.blobs), teacher=tree, teacher_classifies=teacher.classifies
    )
    spec, storage = file.spec, optuna_storage(store)
    new = NewStudy(
        name=spec.name,
        optuna_name=spec.name,
        spec_text=file.text,
        spec_json=spec_to_json(spec),
        spec_sha256=file.sha256,
        dataset_sha256=inputs.save(store.blobs),
        data_fingerprint=_fingerprint(dataset, teacher),
        artifacts_url=store.artifacts_url,
        budget=spec.budget,
    )
    with one_at_a_time(store.engine):  # of several processes one creates it; the others find it
        _refuse_taken(store, spec.name)
        new = replace(new, optuna_name=Search.free_name(storage, spec.name))
        Search.create(storage, new.optuna_name, Plan(spec))
        return studies.create_study(store.engine, new)
