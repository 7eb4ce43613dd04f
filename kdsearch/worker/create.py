"""Create a study from a file, or find the one that the same file made before."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdsearch.core.blobs import put_tree
from kdsearch.core.errors import ConflictError, NotFoundError
from kdsearch.core.facts import Facts
from kdsearch.core.spec import BudgetSpec
from kdsearch.core.studyfile import StudyFile, spec_from_json, spec_to_json
from kdsearch.data.dataset import Dataset, Pool, load_dataset, save_dataset
from kdsearch.data.inputs import TEACHER_FILES, Inputs
from kdsearch.data.tokens import TokenPool, text_keys
from kdsearch.distill.stage import TEACHER
from kdsearch.search.asking import Search
from kdsearch.search.check import check_facts
from kdsearch.search.plan import Plan
from kdsearch.search.spaces import registered
from kdsearch.store import leases, reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.migrate import one_at_a_time
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import NewStudy, StudyRecord
from kdsearch.teachers import given
from kdsearch.worker import offered
from kdsearch.worker.offered import Offered
from kdsearch.worker.wanted import Wanted, study_setting, wanted

Progress = Callable[[str], None]
TOKENIZER_FILES = tuple(name for name in TEACHER_FILES if not name.startswith("model."))
"""What is kept of a teacher that cannot run here."""


@dataclass(frozen=True)
class ReadStudy:
    """A study file with all that it names, read and checked."""

    file: StudyFile
    offered: Offered
    dataset: Dataset
    facts: Facts

    @property
    def plan(self) -> Plan:
        """What it searches."""
        return Plan(self.file.spec, registered(self.facts))

    @property
    def fingerprint(self) -> str:
        """Of everything that is read."""
        return self.offered.data_fingerprint(self.dataset)

    @property
    def wanted(self) -> Wanted:
        """What its trials can ask for."""
        setting = study_setting(
            self.file.spec,
            {name: len(pool) for name, pool in self.dataset.pools.items()},
            anchors=self.facts.anchors,
            teacher_width=self.facts.teacher_width,
        )
        return wanted(self.plan, setting)


def create(store: Store, file: StudyFile, *, on_progress: Progress) -> StudyRecord:
    """Store the texts, the teacher and the study.

    Raises ConflictError if the name is taken, DataError and StudyFileError for what cannot be.
    """
    _refuse_taken(store, file.spec.name)
    study = read_study(file, on_progress)
    for warning in _warnings(study):
        on_progress(f"warning: {warning}")
    return _store(store, study, on_progress)


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
        raise _another_file(record, file)
    study = read_study(file, lambda _: None)
    if record.data_fingerprint != study.fingerprint:
        raise ConflictError(
            f"study {record.name!r} was created from other texts or other teachers under the same paths",
            hint="restore them, or give the file another `name:`",
        )
    studies.reopen(store.engine, record.id)
    studies.raise_budget(store.engine, record.id, _budget(store, record, file))
    storage = optuna_storage(store)
    # A larger budget may hold more of the first trials; whoever claims meanwhile enqueues some, too.
    with one_at_a_time(store.engine), leases.study_turn(store.engine, record.id):
        Search.create(storage, record.optuna_name, study.plan)
    return studies.find_study(store.engine, record.name)


def _budget(store: Store, record: StudyRecord, file: StudyFile) -> BudgetSpec:
    """The file's where its author changed it; else what an extension made of it, and at least the file's."""
    named = file.spec.budget
    if named != spec_from_json(record.spec_json).budget:
        return named
    row = reads.study(store.engine, record.name)
    known = {name: getattr(row, f"budget_{name}") for name in type(named).model_fields}
    pairs = {name: (getattr(named, name), limit) for name, limit in known.items()}
    larger = {name: limit for name, (own, limit) in pairs.items() if own is not None and (limit or 0) > own}
    return named.model_copy(update=larger)


def _another_file(record: StudyRecord, file: StudyFile) -> ConflictError:
    """What is another study: a changed file, or the same one as another version read it."""
    if changed := _difference(record.spec_text, file.text, str(file.path)):
        return ConflictError(
            f"study {record.name!r} was created from another file:\n{changed}",
            hint="undo the change, or give the file another `name:`; only `budget` may change",
        )
    meant = _difference(_meaning(record.spec_json), _meaning(spec_to_json(file.spec)), "read now")
    return ConflictError(
        f"study {record.name!r} was created from this very file, but another version of kdsearch read it "
        f"otherwise{':' if meant else ''}\n{meant}".rstrip(),
        hint="resume it with the version that created it, or give the file another `name:`",
    )


def _difference(stored: str, now: str, name: str) -> str:
    """What is stored against what is there now, as a unified diff; empty where they are the same."""
    return "\n".join(
        difflib.unified_diff(stored.splitlines(), now.splitlines(), "stored", name, lineterm="", n=1)
    )


def _meaning(spec: Mapping[str, object]) -> str:
    """All that decides which study it is, a key to a line."""
    counted = {key: value for key, value in spec.items() if key != "budget"}
    return json.dumps(counted, indent=2, sort_keys=True, ensure_ascii=False)


def _refuse_taken(store: Store, name: str) -> None:
    try:
        studies.find_study(store.engine, name)
    except NotFoundError:
        return
    raise ConflictError(
        f"study {name!r} exists already",
        hint=f"see `kdsearch study show {name}`; `kdsearch run FILE` resumes it; or choose another `name:`",
    )


def read_study(file: StudyFile, on_progress: Progress) -> ReadStudy:
    """Everything that the file names; what it asks for in vain is an error now."""
    found, spec = offered.look(file), file.spec
    on_progress("reading texts" if spec.data.augmented is None else "reading and augmenting texts")
    dataset = load_dataset(
        spec.data,
        base=file.base,
        teacher_labels=found.teacher.labels,
        mask_token=offered.mask_token(file, found.teacher),
        seed=spec.training.seed,
    )
    for warning in dataset.warnings:
        on_progress(f"warning: {warning}")
    _check_objective(file, dataset)
    offered.check_historical(file, found, dataset)
    facts = found.facts(file, dataset)
    check_facts(file, facts)
    return ReadStudy(file, found, dataset, facts)


def _warnings(study: ReadStudy) -> list[str]:
    spec, wants = study.file.spec, study.wanted
    found = study.plan.warnings()
    if wants.begun_with_teacher and spec.teacher.build is not None and spec.teacher.pretrain is None:
        found.append(
            "students may begin with the teacher's vectors or layers as they are before fine-tuning, and "
            "those of a teacher built from a configuration are random then: add `pretrain` under teacher"
        )
    return found


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


def _store(store: Store, study: ReadStudy, on_progress: Progress) -> StudyRecord:
    on_progress("storing texts and teacher")
    file, spec, storage = study.file, study.file.spec, optuna_storage(store)
    inputs = _inputs(store, study)
    new = NewStudy(
        name=spec.name,
        optuna_name=spec.name,
        spec_text=file.text,
        spec_json=spec_to_json(spec),
        spec_sha256=file.sha256,
        dataset_sha256=inputs.save(store.blobs),
        data_fingerprint=study.fingerprint,
        artifacts_url=store.artifacts_url,
        budget=spec.budget,
    )
    with one_at_a_time(store.engine):  # of several processes one creates it; the others find it
        _refuse_taken(store, spec.name)
        new = replace(new, optuna_name=Search.free_name(storage, spec.name))
        Search.create(storage, new.optuna_name, study.plan)
        return studies.create_study(store.engine, new)


def _inputs(store: Store, study: ReadStudy) -> Inputs:
    """Store all that the study starts from."""
    found, blobs = study.offered, store.blobs
    kept = TEACHER_FILES if found.teacher.logits is None else TOKENIZER_FILES

    def tree(folder: Path | None, only: tuple[str, ...] = TEACHER_FILES) -> str | None:
        return None if folder is None else put_tree(blobs, folder, only=only)

    return Inputs(
        dataset=save_dataset(study.dataset, blobs),
        teacher=tree(found.teacher.folder, kept),
        teacher_classifies=found.teacher.classifies,
        facts=study.facts,
        historical=tuple(tree(folder) for folder in found.historical),
        logits=_store_logits(store, study),
        logits_fingerprint=found.teacher.fingerprint if found.teacher.logits else None,
        vectors=None if found.vectors is None else blobs.put(found.vectors),
        encoder=tree(found.encoder),
    )


def _store_logits(store: Store, study: ReadStudy) -> str | None:
    """The given logits; DataError unless they cover every text that somebody may ask them of."""
    path = study.offered.teacher.logits
    if path is None:
        return None
    shard = given.read_logits(path, study.dataset.labels, study.file.spec.teacher.label_map)
    names = ("validation", *study.wanted.signals.get(TEACHER, ()))
    pools = [_without_tokens(study.dataset.pools[name]) for name in names]
    given.check_complete(shard, pools, where=str(path))
    with tempfile.TemporaryDirectory(prefix="kdsearch-logits-") as folder:
        shard.save(Path(folder) / "shard.npz")
        return store.blobs.put(Path(folder) / "shard.npz")


def _without_tokens(pool: Pool) -> TokenPool:
    """The pool's texts by their hashes alone."""
    return TokenPool(
        name=pool.name,
        ids=np.empty(0, np.int32),
        offsets=np.zeros(len(pool) + 1, np.int64),
        labels_N=pool.labels_N,
        keys=text_keys(pool.texts),
    )
