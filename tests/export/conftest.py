"""A small study as its tables and artifacts stand after one complete trial, made by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdsearch.core.blobs import put_tree
from kdsearch.core.records import HardwareProfile, Latency, Scores, TrialConfig, TrialResult
from kdsearch.core.spec import BudgetSpec
from kdsearch.data.dataset import Dataset, Pool, save_dataset
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared, PreparedPool
from kdsearch.data.tokens import TokenPool, id_table, tokenise
from kdsearch.export.folder import Parcel, write_parcel
from kdsearch.export.verify import pool_logits, student_run
from kdsearch.measure.quality import score
from kdsearch.store import leases, reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.studies import NewStudy, StudyRecord
from kdsearch.students.base import InputShape, Student
from kdsearch.students.building import SavedStudent, architecture_key, build_student, save_student

LABELS = ("genuine", "spam")
OBJECTIVE = "f1:spam"
MAX_LENGTH = 12
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["free", "prize", "call", "now", "lunch", "home", "later", "good", "room", "quiet", "best", "money"]

PARAMS: dict[str, dict[str, Any]] = {
    "bag": {"embed_dim": 8, "hidden": 8, "dropout": 0.1},
    "textcnn": {"filters": 8, "kernel_sizes": (2, 3), "embed_dim": 8, "dropout": 0.1},
    "bilstm": {"hidden": 8, "layers": 1, "embed_dim": 8, "pooling": "max", "dropout": 0.1},
    "bert_small": {"layers": 1, "hidden": 16, "dropout": 0.1},
}


def make_tokenizer(words: list[str] = WORDS, vocab_size: int = 120) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=SPECIALS, show_progress=False)
    backend.train_from_iterator([" ".join(words)] * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_pool(name: str, rows: int, seed: int) -> Pool:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 25))) for _ in range(rows)]
    if name in ("validation", "test"):
        texts[0] = ""
    labels = np.array([int("prize" in text or "money" in text) for text in texts], np.int64)
    return Pool(name, tuple(texts), labels)


def array_blob(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


PROFILE = HardwareProfile(
    device_model="A | machine", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="real"
)


def latency(p90_ms: float, profile: HardwareProfile = PROFILE) -> Latency:
    return Latency(
        p50_ms=p90_ms * 0.8,
        p90_ms=p90_ms,
        p99_ms=p90_ms * 1.5,
        mean_ms=p90_ms,
        num_queries=100,
        seconds=1.0,
        size_mb=0.5,
        num_params=1000,
        tokenize_p50_ms=0.05,
        noisy=False,
        profile=profile,
    )


@dataclass(frozen=True)
class World:
    """The study and what it was made from."""

    store: Store
    record: StudyRecord
    prepared: Prepared
    dataset: Dataset
    pools: dict[str, TokenPool]
    shape: InputShape
    table: np.ndarray

    def student(self, name: str, seed: int = 0) -> Student:
        """Untrained, but with an opinion: half of the validation rows get each label."""
        student = build_student(name, PARAMS[name], self.shape, self.table, seed=seed).eval()
        with torch.no_grad():
            student.classifier.weight *= 20
            margins = np.subtract(*self.validation_logits(student).T)
            student.classifier.bias[0] -= float(np.median(margins))
        return student

    def validation_logits(self, student: Student) -> np.ndarray:
        return pool_logits(student_run(student), self.pools["validation"], num_labels=2, pad_id=0)

    def scores(self, logits: np.ndarray) -> Scores:
        pool = self.pools["validation"]
        return score(logits, pool.labels_N, labels=LABELS, objective=OBJECTIVE)

    def complete(
        self,
        name: str = "textcnn",
        *,
        seed: int = 0,
        p90_ms: float = 0.5,
        change: Callable[[TrialResult], TrialResult] = lambda result: result,
    ) -> int:
        """A complete trial whose artifacts are in the store; returns its number."""
        student, store = self.student(name, seed), self.store
        logits = self.validation_logits(student)
        folder = store.home / f"student-{name}-{seed}"
        save_student(student, folder, LABELS)
        result = change(
            TrialResult(
                scores=self.scores(logits),
                best_epoch=1,
                epochs_run=1,
                rows_seen=10,
                train_seconds=0.1,
                artifact=put_tree(store.blobs, folder),
                validation_logits=store.blobs.put(array_blob(logits)),
            )
        )
        lease = self._running(name, seed)
        leases.record_latency(store.engine, lease, latency(p90_ms))
        leases.finish_complete(store.engine, lease, result, {})
        return lease.number

    def _running(self, name: str, seed: int) -> leases.Lease:
        config = TrialConfig(
            student=name,
            student_params=PARAMS[name],
            scheme="offline",
            scheme_params={"loss": "kl", "temperature": 2.0, "lambda": 0.5},
            learning_rate=1e-3,
            batch_size=8,
            epochs=1,
            seed=seed,
        )
        with leases.study_turn(self.store.engine, self.record.id) as connection:
            number = leases.count_trials(connection, self.record.id)
            return leases.insert_running(
                connection,
                self.record.id,
                number=number,
                optuna_trial_id=number,
                config=config,
                architecture_key=architecture_key(name, PARAMS[name], self.shape),
                worker_id="w",
                ttl_s=60.0,
            )

    @property
    def study(self) -> reads.StudyRow:
        return reads.study(self.store.engine, self.record.name)

    def trial(self, number: int) -> reads.TrialRow:
        return reads.trial(self.store.engine, self.record.id, number)


def spec_json(name: str) -> dict[str, Any]:
    from kdsearch.core.spec import StudySpec
    from kdsearch.core.studyfile import spec_to_json

    spec = {
        "version": 1,
        "name": name,
        "data": {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"},
        "teacher": {"model": "/somebody/private/teacher", "max_length": MAX_LENGTH},
        "objectives": {"quality": OBJECTIVE},
    }
    return spec_to_json(StudySpec.model_validate(spec))


def make_world(
    store: Store,
    folder: Path,
    *,
    test: bool = True,
    tokenizer: Any = None,
    name: str = "tiny",
    pools: dict[str, Pool] | None = None,
) -> World:
    """A prepared study without trials; ``tokenizer`` is the stored one where it is not the one used."""
    used = make_tokenizer() if pools is None else make_tokenizer(list(pools["train"].texts), 2000)
    rows = {"train": 60, "validation": 40, **({"test": 30} if test else {})}
    pools = pools or {name: make_pool(name, n, seed) for seed, (name, n) in enumerate(rows.items())}
    dataset = Dataset(labels=LABELS, pools=pools, warnings=(), fingerprint="d" * 64)
    token_pools = {name: tokenise(pool, used, MAX_LENGTH) for name, pool in pools.items()}
    table = id_table([token_pools["train"]], len(used), used.all_special_ids, pad_id=0)
    (tokenizer or used).save_pretrained(folder / "tokenizer")
    teacher = np.random.default_rng(9).normal(size=(len(pools["validation"]), 2)).astype(np.float32)
    prepared = Prepared(
        labels=LABELS,
        tokenizer=put_tree(store.blobs, folder / "tokenizer"),
        teacher=None,
        teacher_fingerprint="e" * 64,
        max_length=MAX_LENGTH,
        pad_id=0,
        vocab_size=len(used),
        num_tokens=int(table.max()) + 1,
        id_table=store.blobs.put(array_blob(table)),
        pools={
            name: _stored(store, folder, pool, teacher if name == "validation" else None)
            for name, pool in token_pools.items()
        },
        profile=PROFILE,
    )
    record = _study(store, dataset, name)
    studies.set_prepared(store.engine, record.id, prepared.save(store.blobs))
    studies.set_teacher(store.engine, record.id, _teacher_scores(), latency(20.0))
    shape = _shape(prepared.vocab_size, prepared.num_tokens)
    return World(store, record, prepared, dataset, token_pools, shape, table)


def _shape(vocab_size: int, num_tokens: int) -> InputShape:
    return InputShape(
        vocab_size=vocab_size, num_tokens=num_tokens, num_labels=2, max_length=MAX_LENGTH, pad_id=0
    )


def _stored(store: Store, folder: Path, pool: TokenPool, logits: np.ndarray | None) -> PreparedPool:
    path = folder / f"{pool.name}.npz"
    pool.save(path)
    sha = None if logits is None else store.blobs.put(array_blob(logits))
    return PreparedPool(tokens=store.blobs.put(path), logits=sha, num_rows=len(pool))


def _study(store: Store, dataset: Dataset, name: str) -> StudyRecord:
    inputs = Inputs(dataset=save_dataset(dataset, store.blobs), teacher=None, teacher_classifies=True)
    return studies.create_study(
        store.engine,
        NewStudy(
            name=name,
            optuna_name=name,
            spec_text=f"name: {name}\n",
            spec_json=spec_json(name),
            spec_sha256="a" * 64,
            dataset_sha256=inputs.save(store.blobs),
            data_fingerprint="d" * 64,
            artifacts_url=store.artifacts_url,
            budget=BudgetSpec(trials=10),
        ),
    )


def _teacher_scores() -> Scores:
    return Scores(quality=0.95, accuracy=0.96, macro_f1=0.95, nll=0.1, recall={"genuine": 0.97, "spam": 0.94})


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path)


@pytest.fixture
def world_of_the_docs(store: Store, tmp_path: Path) -> World:
    """Under the name that the documentation uses."""
    return make_world(store, tmp_path, name="sms-spam")


@pytest.fixture
def world_of_sms(store: Store, tmp_path: Path, data_dir: Path) -> World:
    """Of real messages."""
    pools = {}
    for name in ("train", "validation", "test"):
        lines = (data_dir / "sms_spam" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        labels = np.array([int(row["label"] == "spam") for row in rows], np.int64)
        pools[name] = Pool(name, tuple(row["text"] for row in rows), labels)
    return make_world(store, tmp_path, pools=pools)


@pytest.fixture
def world_without_test(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path, test=False)


@pytest.fixture
def world_with_other_tokenizer(store: Store, tmp_path: Path) -> World:
    # words read backwards: the same words in another order may give the same vocabulary
    return make_world(store, tmp_path, tokenizer=make_tokenizer([word[::-1] for word in WORDS]))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[Path, Student]]:
    """Writes an untrained student in some formats, without a study; gives the folder and the student."""

    def write(name: str, formats: tuple[str, ...], **options: Any) -> tuple[Path, Student]:
        tokenizer, folder, work = make_tokenizer(), tmp_path / name, tmp_path / f"{name}-work"
        folder.mkdir()
        work.mkdir()
        student = build_student(name, PARAMS[name], _shape(len(tokenizer), 40), None, seed=4).eval()
        write_parcel(folder, Parcel(SavedStudent(student, LABELS), tokenizer, work, **options), formats)
        return folder, student

    return write


@pytest.fixture
def wrong_logits(world: World) -> Callable[[TrialResult], TrialResult]:
    """A result that names another student's validation logits."""
    other = world.validation_logits(world.student("textcnn", seed=99))

    def change(result: TrialResult) -> TrialResult:
        return replace(result, validation_logits=world.store.blobs.put(array_blob(other)))

    return change


@pytest.fixture
def labels_of() -> Callable[[str], list[str]]:
    """Labels from the JSON that a child process printed as its last line."""

    def parse(stdout: str) -> list[str]:
        found: list[str] = json.loads(stdout.strip().splitlines()[-1])
        return found

    return parse
