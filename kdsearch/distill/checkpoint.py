"""Checkpoint of a training: weights, optimizer and the best state so far, as bytes.

Beside the module there may be companions: what the terms learn, and a teacher in training.

What is not in it needs no room in it: the learning rate is a function of the rows seen, the order of the
data and the random numbers (dropout) are functions of (seed, epoch). So a resumed training equals an
uninterrupted one bit for bit, and nothing that happens between two epochs can change it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdsearch.core.errors import ArtifactError
from kdsearch.core.records import Scores

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best scored epoch so far."""

    epoch: int
    scores: Scores
    state: dict[str, Tensor] = field(repr=False)
    """Weights on the CPU."""
    validation_logits_NC: npt.NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is; epochs count over all stages."""

    epochs_run: int = 0
    rows_seen: int = 0
    seconds: float = 0.0
    best: Best | None = None


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and buffers on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def pack(content: Mapping[str, Any]) -> bytes:
    """Tensors, numbers and texts as bytes; `unpack` is its inverse."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """From what `pack` gave, on the CPU; ArtifactError if the bytes are no checkpoint."""
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ArtifactError(f"a checkpoint cannot be read: {error}", hint="start the trial afresh") from error
    if content.get("format") != FORMAT:
        raise ArtifactError(
            f"a checkpoint has format {content.get('format')!r}, this kdsearch reads {FORMAT}",
            hint="resume with the kdsearch version that began the trial",
        )
    return content


def dump(
    progress: Progress,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    companions: Mapping[str, nn.Module],
) -> bytes:
    """Everything that goes on from here needs."""
    best = progress.best
    return pack(
        {
            "epochs_run": progress.epochs_run,
            "rows_seen": progress.rows_seen,
            "seconds": progress.seconds,
            "module": module.state_dict(),
            "companions": {name: companion.state_dict() for name, companion in companions.items()},
            "optimizer": optimizer.state_dict(),
            "best": None if best is None else _dump_best(best, current=best.epoch == progress.epochs_run),
        }
    )


def _dump_best(best: Best, *, current: bool) -> dict[str, Any]:
    return {
        "epoch": best.epoch,
        "scores": asdict(best.scores),
        "state": None if current else best.state,  # the same weights are there already, as `module`
        "validation_logits_NC": torch.from_numpy(best.validation_logits_NC),
    }


def load(
    data: bytes,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    companions: Mapping[str, nn.Module],
) -> Progress:
    """Put everything where `dump` left it; ArtifactError if the bytes are no checkpoint."""
    content = unpack(data)
    module.load_state_dict(content["module"])
    for name, state in content.get("companions", {}).items():  # version 0.1 knew of none
        companions[name].load_state_dict(state)
    optimizer.load_state_dict(content["optimizer"])
    return Progress(
        epochs_run=content["epochs_run"],
        rows_seen=content["rows_seen"],
        seconds=content["seconds"],
        best=_load_best(content["best"], content["module"]),
    )


def _load_best(best: dict[str, Any] | None, current: dict[str, Tensor]) -> Best | None:
    if best is None:
        return None
    return Best(
        epoch=best["epoch"],
        scores=Scores(**best["scores"]),
        state=best["state"] or {name: tensor.clone() for name, tensor in current.items()},
        validation_logits_NC=best["validation_logits_NC"].numpy(),
    )
