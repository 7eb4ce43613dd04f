"""Signals: a teacher's logits and hidden vectors for texts, computed once, found again by the text's hash.

Letters: N rows of a pool, S rows of a shard, C classes, L layers, H the teacher's width. Logits are
float32: float16 changes an argmax now and then; hidden vectors are float16. A shard's row is known by the
text it belongs to, never by its position, so that shuffling, augmenting or growing a pool cannot give a
text the signals of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import ArtifactError, VerificationError
from kdsearch.data.batches import Batch, Output, collate, eval_batches
from kdsearch.data.tokens import TokenPool
from kdsearch.teachers.source import TeacherModule

FloatArray = npt.NDArray[np.float32]
HalfArray = npt.NDArray[np.float16]
Values = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

EVAL_BATCH_SIZE = 64
LOGIT_TOLERANCE, HIDDEN_TOLERANCE = 1e-3, 5e-3
"""How far recomputed signals may be off; hidden vectors in parts of their size, some steps of float16."""
STALE = "delete the cached signals of this teacher and prepare the study again"
FORMAT = 1


def signals_key(
    teacher_fingerprint: str,
    tokenizer_fingerprint: str,
    max_length: int,
    *,
    layers: Sequence[int] = (),
    order: Sequence[int] = (),
) -> str:
    """Shards with equal keys belong together: same teacher, same tokens, same cut.

    Of its logits in this `order` of its classes, or with `layers` of the hidden vectors of these.
    """
    key: dict[str, object] = {
        "signals": FORMAT,
        "teacher": teacher_fingerprint,
        "tokenizer": tokenizer_fingerprint,
        "max_length": max_length,
    }
    if layers:
        key["layers"] = list(layers)
    elif list(order) != sorted(order):  # as the teacher has them goes without saying
        key["order"] = list(order)
    return sha256_of(key)


def take(pool: TokenPool, rows: IntArray) -> TokenPool:
    """The pool's rows in the order given, as a pool of their own."""
    lengths = pool.lengths[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - pool.offsets[rows], lengths)
    return TokenPool(pool.name, pool.ids[positions], offsets, pool.labels_N[rows], pool.keys[rows])


def compute_logits(
    module: nn.Module,
    pool: TokenPool,
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None],
    batch_size: int = EVAL_BATCH_SIZE,
) -> FloatArray:
    """Logits of a teacher or student in evaluation mode, (N, C), in the pool's order.

    The module is left in evaluation mode; `breathe` is called before every batch.
    """

    def logits(batch: Batch) -> Tensor:
        output: Output = module(batch.input_ids_BT, batch.attention_mask_BT)
        return output.logits_BC.float()

    batches = eval_batches(pool, batch_size)
    return _compute(module, pool, batches, logits, pad_id=pad_id, device=device, breathe=breathe)


def compute_hidden(
    module: TeacherModule,
    pool: TokenPool,
    *,
    layers: Sequence[int],
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None],
    batch_size: int = EVAL_BATCH_SIZE,
) -> HalfArray:
    """Mean hidden vectors of some layers of a teacher, (N, L, H), as `compute_logits` computes logits."""

    def hidden(batch: Batch) -> Tensor:
        return module.hidden(batch.input_ids_BT, batch.attention_mask_BT, layers).half()

    batches = eval_batches(pool, batch_size)
    return _compute(module, pool, batches, hidden, pad_id=pad_id, device=device, breathe=breathe)


@torch.inference_mode()
def _compute(
    module: nn.Module,
    pool: TokenPool,
    batches: Sequence[IntArray],
    values: Callable[[Batch], Tensor],
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None],
) -> npt.NDArray[Any]:
    """What a module in evaluation mode gives for every batch, back in the pool's order."""
    module.eval()
    computed = []
    # TF32 in cuDNN's convolutions and LSTMs would put a thousandth between a GPU's logits and the CPU's.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for rows in batches:
            breathe()
            computed.append(values(collate(pool, rows, pad_id=pad_id, device=device)))
    if not computed:
        raise ValueError(f"pool {pool.name!r} has no rows")
    ordered = torch.cat(computed).cpu().numpy()
    found = np.empty_like(ordered)
    found[np.concatenate(batches)] = ordered
    return found


@dataclass(frozen=True)
class Shard:
    """Some texts' signals, content-addressed."""

    keys: npt.NDArray[np.uint8]
    """(S, 32), SHA-256 of each text."""
    values: Values
    """(S, C) float32 logits, or (S, L, H) float16 hidden vectors."""

    def __post_init__(self) -> None:
        fits = self.values.ndim > 1 and self.keys.shape == (len(self.values), 32)
        if not fits or self.values.dtype not in (np.float32, np.float16):
            raise ValueError(f"keys {self.keys.shape}, values {self.values.shape} {self.values.dtype}")

    def save(self, path: Path) -> None:
        """One ``.npz`` file without pickles."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, keys=self.keys, values=self.values)

    @classmethod
    def load(cls, path: Path) -> Shard:
        """From what `save` wrote; nothing in the file is executed."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                name = "values" if "values" in arrays else "logits_SC"  # as version 0.1 wrote it
                return cls(arrays["keys"], arrays[name])
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise ArtifactError(
                f"{path} does not hold teacher signals: {error}", hint="the file is damaged; delete it"
            ) from error


def compute_shard(
    module: TeacherModule,
    pool: TokenPool,
    rows: IntArray,
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None],
    layers: Sequence[int] = (),
) -> Shard:
    """The logits of some rows of a pool, or with `layers` their hidden vectors, to be stored and shared."""
    part = take(pool, rows)
    if layers:
        hidden = compute_hidden(module, part, layers=layers, pad_id=pad_id, device=device, breathe=breathe)
        return Shard(part.keys, hidden)
    return Shard(part.keys, compute_logits(module, part, pad_id=pad_id, device=device, breathe=breathe))


def lookup(shards: Sequence[Shard], pool: TokenPool) -> tuple[npt.NDArray[Any], IntArray]:
    """(values (N, ...), missing rows): NaN where no shard has the text; (N, 0) without any shard.

    Of equal texts that are missing only the first is named, so that it is computed once.
    """
    like = shards[0].values if shards else np.empty((0, 0), np.float32)
    found = np.full((len(pool), *like.shape[1:]), np.nan, like.dtype)
    known = {key.tobytes(): (s, i) for s, shard in enumerate(shards) for i, key in enumerate(shard.keys)}
    missing: dict[bytes, int] = {}
    for row, key in enumerate(pool.keys):
        text = key.tobytes()
        if text in known:
            s, i = known[text]
            found[row] = shards[s].values[i]
        else:
            missing.setdefault(text, row)
    return found, np.fromiter(missing.values(), np.int64, len(missing))


def accuracy(logits_NC: Values, labels_N: IntArray) -> float | None:
    """Share of labelled rows whose argmax is the label; None without any label."""
    labelled = labels_N >= 0
    if not labelled.any():
        return None
    return float((logits_NC[labelled].argmax(axis=1) == labels_N[labelled]).mean())


def audit(
    module: TeacherModule,
    pool: TokenPool,
    values: Values,
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None] = lambda: None,
    seed: int = 0,
    num_rows: int = 32,
    expected_accuracy: float | None = None,
    layers: Sequence[int] = (),
) -> None:
    """Recompute a random sample of rows; raise VerificationError unless they are what `values` says.

    Logits, or with `layers` hidden vectors of these.
    `expected_accuracy` is what was measured on this pool when the teacher was made; the accuracy of
    the logits must be that, give or take one row.
    """
    if values.shape[0] != len(pool) or not np.isfinite(values).all():
        raise VerificationError(
            f"pool {pool.name!r}: {len(pool)} rows, but signals {values.shape}, or not finite", hint=STALE
        )
    rows = np.random.default_rng(seed).permutation(len(pool))[:num_rows].astype(np.int64)
    fresh = compute_shard(module, pool, rows, pad_id=pad_id, device=device, breathe=breathe, layers=layers)
    _compare(pool, rows, values[rows], fresh.values, hidden=bool(layers))
    if not layers:
        _check_accuracy(pool, values, expected_accuracy)


def _compare(pool: TokenPool, rows: IntArray, cached: Values, fresh: Values, *, hidden: bool) -> None:
    expected = fresh.astype(np.float32).reshape(len(rows), -1)
    off = np.abs(cached.astype(np.float32).reshape(len(rows), -1) - expected)
    tolerance = HIDDEN_TOLERANCE if hidden else LOGIT_TOLERANCE
    if hidden:
        off /= np.maximum(1.0, np.abs(expected))
    off = off.max(axis=1)
    if (off > tolerance).any():
        worst = int(off.argmax())
        raise VerificationError(
            f"pool {pool.name!r}: cached signals of row {rows[worst]} differ by {off[worst]:.3g} from the"
            f" teacher's; {int((off > tolerance).sum())} of {len(rows)} sampled rows do",
            hint=STALE,
        )


def _check_accuracy(pool: TokenPool, logits_NC: Values, expected: float | None) -> None:
    found = accuracy(logits_NC, pool.labels_N)
    if expected is None or found is None:
        return
    if abs(found - expected) > 1.5 / int((pool.labels_N >= 0).sum()):
        raise VerificationError(
            f"pool {pool.name!r}: cached logits have accuracy {found:.4f}, the teacher had {expected:.4f}",
            hint=STALE,
        )
