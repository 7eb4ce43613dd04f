"""Signals: a teacher's logits for a pool of texts, computed once, found again by the text's hash.

Letters: N rows of a pool, S rows of a shard, C classes. Logits are float32: float16 changes an argmax now
and then. A shard's row is known by the text it belongs to, never by its position, so that shuffling,
augmenting or growing a pool cannot give a text the signals of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import ArtifactError, VerificationError
from kdsearch.data.batches import Output, collate, eval_batches
from kdsearch.data.tokens import TokenPool

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

EVAL_BATCH_SIZE = 64
FORMAT = 1


def signals_key(teacher_fingerprint: str, tokenizer_fingerprint: str, max_length: int) -> str:
    """Shards with equal keys belong together: same teacher, same tokens, same cut."""
    return sha256_of(
        {
            "signals": FORMAT,
            "teacher": teacher_fingerprint,
            "tokenizer": tokenizer_fingerprint,
            "max_length": max_length,
        }
    )


def take(pool: TokenPool, rows: IntArray) -> TokenPool:
    """The pool's rows in the order given, as a pool of their own."""
    lengths = pool.lengths[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - pool.offsets[rows], lengths)
    return TokenPool(pool.name, pool.ids[positions], offsets, pool.labels_N[rows], pool.keys[rows])


@torch.inference_mode()
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
    module.eval()
    batches = eval_batches(pool, batch_size)
    computed = []
    # TF32 in cuDNN's convolutions and LSTMs would put a thousandth between a GPU's logits and the CPU's.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for rows in batches:
            breathe()
            batch = collate(pool, rows, pad_id=pad_id, device=device)
            output: Output = module(batch.input_ids_BT, batch.attention_mask_BT)
            computed.append(output.logits_BC.float())
    if not computed:
        raise ValueError(f"pool {pool.name!r} has no rows")
    sorted_NC = torch.cat(computed).cpu().numpy()
    logits_NC = np.empty_like(sorted_NC)
    logits_NC[np.concatenate(batches)] = sorted_NC
    return logits_NC


@dataclass(frozen=True)
class Shard:
    """Some texts' logits, content-addressed."""

    keys: npt.NDArray[np.uint8]
    """(S, 32), SHA-256 of each text."""
    logits_SC: FloatArray

    def __post_init__(self) -> None:
        if self.keys.shape != (len(self.logits_SC), 32) or self.logits_SC.dtype != np.float32:
            raise ValueError(f"keys {self.keys.shape}, logits {self.logits_SC.shape} {self.logits_SC.dtype}")

    def save(self, path: Path) -> None:
        """One ``.npz`` file without pickles."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, keys=self.keys, logits_SC=self.logits_SC)

    @classmethod
    def load(cls, path: Path) -> Shard:
        """From what `save` wrote; nothing in the file is executed."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["keys"], arrays["logits_SC"])
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise ArtifactError(
                f"{path} does not hold teacher signals: {error}", hint="the file is damaged; delete it"
            ) from error


def compute_shard(
    module: nn.Module,
    pool: TokenPool,
    rows: IntArray,
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None],
) -> Shard:
    """The logits of some rows of a pool, ready to be stored and shared."""
    part = take(pool, rows)
    return Shard(part.keys, compute_logits(module, part, pad_id=pad_id, device=device, breathe=breathe))


def lookup(shards: Sequence[Shard], pool: TokenPool) -> tuple[FloatArray, IntArray]:
    """(logits (N, C), missing rows): NaN where no shard has the text; C is 0 without any shard.

    Of equal texts that are missing only the first is named, so that it is computed once.
    """
    num_labels = shards[0].logits_SC.shape[1] if shards else 0
    logits_NC = np.full((len(pool), num_labels), np.nan, np.float32)
    known = {key.tobytes(): (s, i) for s, shard in enumerate(shards) for i, key in enumerate(shard.keys)}
    missing: dict[bytes, int] = {}
    for row, key in enumerate(pool.keys):
        text = key.tobytes()
        if text in known:
            s, i = known[text]
            logits_NC[row] = shards[s].logits_SC[i]
        else:
            missing.setdefault(text, row)
    return logits_NC, np.fromiter(missing.values(), np.int64, len(missing))


def accuracy(logits_NC: FloatArray, labels_N: IntArray) -> float | None:
    """Share of labelled rows whose argmax is the label; None without any label."""
    labelled = labels_N >= 0
    if not labelled.any():
        return None
    return float((logits_NC[labelled].argmax(axis=1) == labels_N[labelled]).mean())


def audit(
    module: nn.Module,
    pool: TokenPool,
    logits_NC: FloatArray,
    *,
    pad_id: int,
    device: torch.device | str,
    breathe: Callable[[], None] = lambda: None,
    seed: int = 0,
    num_rows: int = 32,
    tolerance: float = 1e-3,
    expected_accuracy: float | None = None,
) -> None:
    """Recompute a random sample of rows; raise VerificationError unless they are what `logits_NC` says.

    `expected_accuracy` is what was measured on this pool when the teacher was made; the accuracy of
    `logits_NC` must be that, give or take one row.
    """
    hint = "delete the cached signals of this teacher and prepare the study again"
    if logits_NC.shape[0] != len(pool) or not np.isfinite(logits_NC).all():
        raise VerificationError(
            f"pool {pool.name!r}: {len(pool)} rows, but logits {logits_NC.shape}, or not finite", hint=hint
        )
    rows = np.random.default_rng(seed).permutation(len(pool))[:num_rows].astype(np.int64)
    fresh = compute_logits(module, take(pool, rows), pad_id=pad_id, device=device, breathe=breathe)
    off = np.abs(fresh - logits_NC[rows]).max(axis=1)
    if (off > tolerance).any():
        worst = int(off.argmax())
        raise VerificationError(
            f"pool {pool.name!r}: cached logits of row {rows[worst]} differ by {off[worst]:.3g} from the"
            f" teacher's; {int((off > tolerance).sum())} of {len(rows)} sampled rows do",
            hint=hint,
        )
    _check_accuracy(pool, logits_NC, expected_accuracy, hint)


def _check_accuracy(pool: TokenPool, logits_NC: FloatArray, expected: float | None, hint: str) -> None:
    found = accuracy(logits_NC, pool.labels_N)
    if expected is None or found is None:
        return
    if abs(found - expected) > 1.5 / int((pool.labels_N >= 0).sum()):
        raise VerificationError(
            f"pool {pool.name!r}: cached logits have accuracy {found:.4f}, the teacher had {expected:.4f}",
            hint=hint,
        )
