"""Preparing a study under a lease: texts tokenised, teacher ready, its signals cached and audited.

Done once per study by whichever worker gets the lease; the others wait. Every step is found again
in the store by its content, so that whoever takes over from a dead holder repeats nothing that was
finished: the teacher from its last anchor, the signals from their last shard.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kdsearch.core.blobs import get_tree, put_tree
from kdsearch.core.records import Latency, Scores
from kdsearch.data import tokens
from kdsearch.data.dataset import Dataset, load_saved
from kdsearch.data.prepared import Prepared, PreparedPool
from kdsearch.data.tokens import TokenPool
from kdsearch.measure.profile import hardware_profile
from kdsearch.measure.quality import score
from kdsearch.store import cache, leases, studies
from kdsearch.store.leases import PreparationLease
from kdsearch.teachers import signals, source
from kdsearch.teachers.source import TeacherModule
from kdsearch.worker import measuring
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.pulse import Pulse
from kdsearch.worker.teacher import TeacherTrees, prepare_teacher, source_folder

SIGNALS = "signals"
ROWS_PER_SHARD = 2048
TRAINING_POOLS = ("train", "unlabelled")


def array_bytes(array: npt.NDArray[np.generic]) -> bytes:
    """An array as a ``.npy`` file without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def prepare(context: WorkerContext, lease: PreparationLease, pulse: Pulse) -> None:
    """Prepare the study and record it; raises Stopped or LeaseLostError when it must let go."""
    torch.set_num_threads(context.options.prepare_threads)
    try:
        with tempfile.TemporaryDirectory(prefix="kdsearch-prepare-") as folder:
            sha256 = _Preparation(context, lease, pulse, Path(folder)).run()
    finally:
        torch.set_num_threads(context.options.threads)
    leases.finish_preparation(context.store.engine, lease, sha256)


@dataclass
class _Preparation:
    context: WorkerContext
    lease: PreparationLease
    pulse: Pulse
    folder: Path

    def run(self) -> str:
        context = self.context
        self._say("reading texts")
        dataset = load_saved(context.store.blobs, context.inputs.dataset)
        origin = source_folder(context, dataset, self.folder / "source")
        pools = self._tokenise(dataset, origin)
        with self._training() as breathe:
            trees = prepare_teacher(
                context,
                dataset,
                pools,
                origin,
                unfinished=self.lease.checkpoint,
                keep=self._keep,
                breathe=breathe,
                should_stop=self._should_stop,
            )
        folder = get_tree(context.store.blobs, trees.final, self.folder / "teacher")
        renamed = context.spec.teacher.label_map if context.inputs.teacher_classifies else None
        module = source.load_classifier(folder, dataset.labels, label_map=renamed)
        module.to(context.options.device)
        logits = self._signals(module, folder, pools, trees.accuracy)
        self._record_teacher(module, folder, dataset, pools, logits)
        return self._manifest(dataset, pools, logits, trees, folder).save(context.store.blobs)

    def _should_stop(self) -> bool:
        return self.context.should_stop() or self.pulse.lost

    def _say(self, text: str) -> None:
        leases.preparation_progress(self.context.store.engine, self.lease, text)
        if self._should_stop():
            raise Stopped

    def _keep(self, text: str, checkpoint: str) -> None:
        """Never lets go in the middle: what the checkpoint replaces is still to be removed."""
        leases.preparation_progress(self.context.store.engine, self.lease, text, checkpoint)

    @contextmanager
    def _training(self) -> Iterator[Callable[[], None]]:
        """Under the host lock; what this yields lets go, too, where nothing else asks for long."""
        with self.context.lock.training() as let_measure:

            def breathe() -> None:
                if self._should_stop():
                    raise Stopped
                let_measure()

            yield breathe

    def _tokenise(self, dataset: Dataset, folder: Path) -> dict[str, TokenPool]:
        tokenizer = source.load_tokenizer(folder)
        length = self.context.spec.teacher.max_length
        pools = {}
        for name, pool in dataset.pools.items():
            self._say(f"tokenising {name}: {len(pool.texts)} texts")
            pools[name] = tokens.tokenise(pool, tokenizer, length)
        return pools

    # ------------------------------------------------------------ signals

    def _signals(
        self, module: TeacherModule, folder: Path, pools: dict[str, TokenPool], accuracy: float | None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The teacher's logits on every pool but the test split, each text asked once for all studies."""
        key = signals.signals_key(
            source.fingerprint(folder),
            source.tokenizer_fingerprint(folder),
            self.context.spec.teacher.max_length,
        )
        wanted = {name: pool for name, pool in pools.items() if name != "test"}
        with self._training() as breathe:
            found = {n: self._pool_signals(module, pool, key, breathe) for n, pool in wanted.items()}
            for name, pool in wanted.items():
                signals.audit(
                    module,
                    pool,
                    found[name],
                    pad_id=module.pad_id,
                    device=self._device,
                    breathe=breathe,
                    expected_accuracy=accuracy if name == "validation" else None,
                )
        return found

    @property
    def _device(self) -> str:
        return self.context.options.device

    def _pool_signals(
        self, module: TeacherModule, pool: TokenPool, key: str, breathe: Callable[[], None]
    ) -> npt.NDArray[np.float32]:
        store = self.context.store
        shards = [
            signals.Shard.load(store.blobs.open(entry.sha256))
            for entry in cache.find(store.engine, SIGNALS, key)
            if store.blobs.exists(entry.sha256)  # it may be in another study's artifact store alone
        ]
        logits, missing = signals.lookup(shards, pool)
        for start in range(0, len(missing), ROWS_PER_SHARD):
            done = len(pool) - len(missing) + start
            self._say(f"teacher labels {pool.name}: {done} of {len(pool)} texts")
            rows = missing[start : start + ROWS_PER_SHARD]
            shard = signals.compute_shard(
                module, pool, rows, pad_id=module.pad_id, device=self._device, breathe=breathe
            )
            self._keep_shard(shard, key)
            shards.append(shard)
        if len(missing):
            logits, _ = signals.lookup(shards, pool)
        return logits

    def _keep_shard(self, shard: signals.Shard, key: str) -> None:
        path = self.folder / "shard.npz"
        shard.save(path)
        cache.add(self.context.store.engine, SIGNALS, key, self.context.store.blobs.put(path), {})

    # ------------------------------------------------------------ what is recorded

    def _record_teacher(
        self,
        module: TeacherModule,
        folder: Path,
        dataset: Dataset,
        pools: dict[str, TokenPool],
        logits: dict[str, npt.NDArray[np.float32]],
    ) -> None:
        self._say("measuring the teacher")
        spec = self.context.spec
        scores: Scores = score(
            logits["validation"],
            pools["validation"].labels_N,
            labels=dataset.labels,
            objective=spec.objectives.quality,
        )
        studies.set_teacher(
            self.context.store.engine, self.context.study.id, scores, self._latency(module, folder, dataset)
        )

    def _latency(self, module: TeacherModule, folder: Path, dataset: Dataset) -> Latency:
        length, protocol = self.context.spec.teacher.max_length, self.context.spec.latency
        texts = dataset.pools["validation"].texts
        key = measuring.figure_key(
            f"teacher:{source.fingerprint(folder)}",
            hardware_profile(protocol),
            texts,
            max_length=length,
            tokenizer=source.tokenizer_fingerprint(folder),
            protocol=protocol,
        )
        encode = measuring.encoder(source.load_tokenizer(folder), length)
        return measuring.measure(self.context, module.cpu(), key=key, texts=texts, encode=encode)

    def _manifest(
        self,
        dataset: Dataset,
        pools: dict[str, TokenPool],
        logits: dict[str, npt.NDArray[np.float32]],
        trees: TeacherTrees,
        folder: Path,
    ) -> Prepared:
        blobs = self.context.store.blobs
        tokenizer = source.load_tokenizer(folder)
        vocab_size = max(len(tokenizer), tokenizer.vocab_size)
        training = [pools[name] for name in TRAINING_POOLS if name in pools]
        table = tokens.id_table(
            training, vocab_size, tokenizer.all_special_ids, pad_id=int(tokenizer.pad_token_id)
        )
        tokenizer.save_pretrained(self.folder / "tokenizer")
        return Prepared(
            labels=dataset.labels,
            tokenizer=put_tree(blobs, self.folder / "tokenizer"),
            teacher=trees.final,
            teacher_fingerprint=source.fingerprint(folder),
            max_length=self.context.spec.teacher.max_length,
            pad_id=int(tokenizer.pad_token_id),
            vocab_size=vocab_size,
            num_tokens=int(table.max()) + 1,
            id_table=blobs.put(array_bytes(table)),
            pools={name: self._store_pool(pool, logits.get(name)) for name, pool in pools.items()},
            profile=hardware_profile(self.context.spec.latency),
            anchors=trees.anchors,
        )

    def _store_pool(self, pool: TokenPool, logits: npt.NDArray[np.float32] | None) -> PreparedPool:
        path = self.folder / f"{pool.name}.npz"
        pool.save(path)
        blobs = self.context.store.blobs
        return PreparedPool(
            tokens=blobs.put(path),
            logits=None if logits is None else blobs.put(array_bytes(logits)),
            num_rows=len(pool),
        )
