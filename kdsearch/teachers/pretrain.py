"""Masked-language-model training of a built teacher (Devlin et al. 2019, 3.1), without next sentences.

Notable:
- Of the tokens to guess 80 % are masked, 10 % replaced by any word piece and 10 % left; anew in every epoch.
- The head scores the tokens to guess alone: that is most of the work where the vocabulary is large.
- Order, masks and dropout depend on (seed, epoch) alone. A checkpoint ends every epoch, and others come
  between two steps where asked for: resumed equals uninterrupted, bit for bit on the CPU.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel

from kdsearch.core.errors import ArtifactError, KdsearchError
from kdsearch.core.specteacher import PretrainSpec
from kdsearch.data.batches import Batch, collate, epoch_batches
from kdsearch.data.tokens import TokenPool, concat
from kdsearch.teachers.source import TOKENIZER, load_tokenizer, quiet, teacher_files

FORMAT = 2
READABLE = (1, 2)
"""Format 1 knew of the ends of epochs only."""
MASKED, REPLACED = 0.8, 0.1
"""Shares of the tokens to guess; the rest is left as it is."""
WARM_UP = 0.1
"""Share of all rows over which the learning rate rises; then it falls to 0."""
WEIGHT_DECAY, CLIP_NORM = 0.01, 1.0


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """One epoch."""

    epoch: int
    """Counts from 1."""
    loss: float
    """Mean over the guessed tokens, in nats."""
    seconds: float
    """Of all epochs so far."""


@dataclass(frozen=True, kw_only=True)
class Between:
    """Checkpoints in the middle of an epoch."""

    every_s: float
    put: Callable[[float, bytes], None]
    """Takes the share of all rows that is seen and a checkpoint; also called when asked to stop."""
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class WordPieces:
    """What masking must know of a tokenizer."""

    mask_id: int
    special_V: Tensor
    """True for what is never guessed."""
    ordinary: Tensor
    """Ids of all others."""

    @classmethod
    def of(cls, tokenizer: Any) -> WordPieces:
        """Of a transformers tokenizer."""
        special_V = torch.zeros(len(tokenizer), dtype=torch.bool)
        special_V[tokenizer.all_special_ids] = True
        return cls(int(tokenizer.mask_token_id), special_V, torch.nonzero(~special_V).flatten())


def mask_tokens(
    ids_BT: Tensor, attention_mask_BT: Tensor, pieces: WordPieces, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(what the model reads (B, T), which tokens it guesses (B, T)); everything on the CPU."""
    shape = ids_BT.shape
    guessed_BT = (torch.rand(shape, generator=generator) < share) & attention_mask_BT.bool()
    guessed_BT &= ~pieces.special_V[ids_BT]
    fate_BT = torch.rand(shape, generator=generator)
    any_BT = pieces.ordinary[torch.randint(len(pieces.ordinary), shape, generator=generator)]
    replaced_BT = guessed_BT & (fate_BT >= MASKED) & (fate_BT < MASKED + REPLACED)
    read_BT = torch.where(replaced_BT, any_BT, ids_BT)
    return read_BT.masked_fill(guessed_BT & (fate_BT < MASKED), pieces.mask_id), guessed_BT


def pretrain(
    folder: Path,
    into: Path,
    spec: PretrainSpec,
    pools: Sequence[TokenPool],
    *,
    seed: int,
    device: str,
    on_epoch: Callable[[PretrainReport, bytes], None],
    resume: bytes | None,
    breathe: Callable[[], None],
    should_stop: Callable[[], bool],
    between: Between | None = None,
) -> float | None:
    """Train the BERT in `folder` on all texts of the pools and write it with its tokenizer to `into`.

    `on_epoch` gets each epoch's report and checkpoint, `between` those in the middle of one; `resume` is any
    of them. Returns the seconds of all epochs; None where `should_stop`, asked before every step, ended it:
    nothing is written then.
    """
    training = _Pretraining(folder, spec, concat(pools, "texts"), seed=seed, device=device)
    if resume is not None:
        training.load(resume)
    for epoch in range(training.epochs_run, spec.epochs):
        loss = training.epoch(epoch, breathe=breathe, should_stop=should_stop, between=between)
        if loss is None:
            return None
        report = PretrainReport(epoch=epoch + 1, loss=loss, seconds=training.seconds)
        on_epoch(report, training.dump())
    training.save(folder, into)
    return training.seconds


class _Pretraining:
    """Model, optimizer and how far they are."""

    def __init__(self, folder: Path, spec: PretrainSpec, pool: TokenPool, *, seed: int, device: str) -> None:
        self.spec, self.pool, self.seed, self.device = spec, pool, seed, device
        tokenizer = load_tokenizer(folder)
        self.pieces, self.pad_id = WordPieces.of(tokenizer), int(tokenizer.pad_token_id)
        self.model = _with_fresh_head(folder, seed=seed).to(device)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)
        self.epochs_run, self.seconds = 0, 0.0
        self.within: dict[str, Any] | None = None
        """How far an epoch is that has begun."""

    def epoch(
        self,
        epoch: int,
        *,
        breathe: Callable[[], None],
        should_stop: Callable[[], bool],
        between: Between | None,
    ) -> float | None:
        """Mean loss of the epoch's guessed tokens; None where it was asked to stop."""
        generator = _seed_epoch(self.seed, epoch)
        done, total, spent = self._wake(generator)
        started, kept = time.perf_counter() - spent, done
        last = between.clock() if between else 0.0
        batches = self._batches(epoch)
        seen = epoch * len(self.pool) + sum(map(len, batches[:done]))
        for number, rows in list(enumerate(batches))[done:]:
            asked = should_stop()
            if between and number > kept and (asked or between.clock() - last >= between.every_s):
                self._leave(generator, number, total, time.perf_counter() - started)
                between.put(self._share(seen), self.dump())
                kept, last = number, between.clock()
            if asked:
                return None
            breathe()
            self._set_learning_rate(self._share(seen + len(rows) / 2))
            total += self._step(collate(self.pool, rows, pad_id=self.pad_id, device="cpu"), generator)
            seen += len(rows)
        self.within, self.epochs_run = None, epoch + 1
        self.seconds += time.perf_counter() - started
        loss_sum, guessed = total.tolist()
        return _finite(loss_sum / max(1.0, guessed), epoch + 1)

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        rows, size = len(self.pool), self.spec.batch_size
        return epoch_batches(self.pool.lengths, batch_size=size, seed=self.seed, epoch=epoch, rows=rows)

    def _share(self, rows: float) -> float:
        """Of all rows of all epochs."""
        return rows / (self.spec.epochs * len(self.pool))

    def _wake(self, generator: torch.Generator) -> tuple[int, Tensor, float]:
        """Train mode and random numbers; batches, sums and seconds that are behind."""
        self.model.train()
        within = self.within
        if within is None:
            return 0, torch.zeros(2, device=self.device), 0.0
        generator.set_state(within["masks"])
        torch.set_rng_state(within["cpu"])
        if within["cuda"] is not None and torch.device(self.device).type == "cuda":
            torch.cuda.set_rng_state(within["cuda"], self.device)
        return within["batches"], within["total"].to(self.device), within["seconds"]

    def _leave(self, generator: torch.Generator, batches: int, total: Tensor, seconds: float) -> None:
        on_cuda = torch.device(self.device).type == "cuda"
        self.within = {
            "batches": batches,
            "total": total.cpu().clone(),
            "seconds": seconds,
            "masks": generator.get_state(),
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def _step(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """(sum of the losses, number of guessed tokens) of one step."""
        read_BT, guessed_BT = mask_tokens(
            batch.input_ids_BT, batch.attention_mask_BT, self.pieces, self.spec.mask, generator
        )
        targets = batch.input_ids_BT[guessed_BT].to(self.device)
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            states_BTH = self.model.bert(
                input_ids=read_BT.to(self.device), attention_mask=batch.attention_mask_BT.to(self.device)
            ).last_hidden_state
            scores = self.model.cls(states_BTH[guessed_BT.to(self.device)])
        total = F.cross_entropy(scores.float(), targets, reduction="sum")
        (total / max(1, len(targets))).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack([total.detach(), total.new_tensor(len(targets))])

    def _set_learning_rate(self, share: float) -> None:
        """`share` of all rows is behind the middle of this step."""
        factor = min(share / WARM_UP, (1 - share) / (1 - WARM_UP))
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.learning_rate * factor

    def dump(self) -> bytes:
        """Everything that goes on from here needs."""
        buffer = io.BytesIO()
        content = {
            "format": FORMAT,
            "epochs_run": self.epochs_run,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "within": self.within,
        }
        torch.save(content, buffer)
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Where `dump` left it; ArtifactError if the bytes are no checkpoint of a pretraining."""
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if content["format"] not in READABLE:
                raise ValueError(f"format {content['format']!r}")
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # torch raises many kinds
            raise ArtifactError(
                f"a checkpoint of the teacher's pretraining cannot be read: {error}",
                hint="prepare the study afresh",
            ) from error
        self.epochs_run, self.seconds = content["epochs_run"], content["seconds"]
        self.within = content.get("within")

    def save(self, folder: Path, into: Path) -> None:
        """The encoder as an ordinary transformers folder; a pooler stays as it was, unlearned."""
        with quiet():
            encoder = BertModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            encoder.load_state_dict(self.model.bert.state_dict(), strict=False)
            encoder.save_pretrained(into, safe_serialization=True)
        for path in teacher_files(folder):
            if any(path.match(pattern) for pattern in TOKENIZER):
                shutil.copyfile(path, into / path.name)


def _with_fresh_head(folder: Path, *, seed: int) -> BertForMaskedLM:
    """The encoder under a head that depends on the seed alone, whose output vectors are the input's."""
    torch.manual_seed(seed)
    with quiet():
        model = BertForMaskedLM(BertConfig.from_pretrained(folder))
        encoder = BertModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    return model


def _seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Dropout by torch's own generator, masks by the one returned."""
    digest = hashlib.sha256(f"mlm/{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.Generator().manual_seed(int.from_bytes(digest[8:16], "big") >> 1)


def _finite(loss: float, epoch: int) -> float:
    if not np.isfinite(loss):
        raise KdsearchError(
            f"the teacher's pretraining diverged: the loss of epoch {epoch} is {loss}",
            hint="lower `teacher.pretrain.learning_rate`",
        )
    return loss
