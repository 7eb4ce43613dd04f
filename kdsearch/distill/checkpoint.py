"""Checkpoint of a training: weights, optimizer and the best state so far, as bytes.

Beside the module there may be companions: what the terms learn, and a teacher in training.

What is not in it needs no room in it: the learning rate is a function of the rows seen, the order of the
data and the random numbers at an epoch's start (dropout) are functions of (seed, epoch). So a resumed
training equals an uninterrupted one bit for bit, and nothing that happens between two epochs can change it.
In the middle of an epoch the state of the random numbers is kept as well, and how far the epoch is.
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

FORMAT = 2
READABLE = (1, 2)
"""Format 1 knew of the ends of epochs only."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best scored epoch so far."""

    epoch: int
    scores: Scores
    state: dict[str, Tensor] = field(repr=False)
    """Weights on the CPU."""
    validation_logits_NC: npt.NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Within:
    """How far an epoch is that has begun."""

    batches: int
    rows: int
    seconds: float
    sums_K: Tensor = field(repr=False)
    """Of each weighted term over these rows, on the CPU."""
    random: Mapping[str, Tensor] = field(repr=False)
    """State of torch's random numbers, from `random_state`."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is; epochs count over all stages."""

    epochs_run: int = 0
    """Finished ones."""
    rows_seen: int = 0
    """Those of an epoch that has begun are among them."""
    seconds: float = 0.0
    """Of finished epochs."""
    best: Best | None = None
    within: Within | None = None
    """None at the end of an epoch."""

    @property
    def rows_finished(self) -> int:
        """Rows of finished epochs."""
        return self.rows_seen - (self.within.rows if self.within else 0)


def random_state(device: str) -> dict[str, Tensor]:
    """Of torch's random numbers on the CPU, and on the device where that has its own."""
    state = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: str) -> None:
    """Go on where `random_state` was asked; a device that had none then goes on as it is."""
    torch.set_rng_state(state["cpu"])
    if torch.device(device).type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


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
    if content.get("format") not in READABLE:
        raise ArtifactError(
            f"a checkpoint has format {content.get('format')!r}, this kdsearch reads up to {FORMAT}",
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
    best, within = progress.best, progress.within
    current = best is not None and within is None and best.epoch == progress.epochs_run
    return pack(
        {
            "epochs_run": progress.epochs_run,
            "rows_seen": progress.rows_seen,
            "seconds": progress.seconds,
            "module": module.state_dict(),
            "companions": {name: companion.state_dict() for name, companion in companions.items()},
            "optimizer": optimizer.state_dict(),
            "best": None if best is None else _dump_best(best, current=current),
            "within": None if within is None else _dump_within(within),
        }
    )


def _dump_best(best: Best, *, current: bool) -> dict[str, Any]:
    return {
        "epoch": best.epoch,
        "scores": asdict(best.scores),
        "state": None if current else best.state,  # the same weights are there already, as `module`
        "validation_logits_NC": torch.from_numpy(best.validation_logits_NC),
    }


def _dump_within(within: Within) -> dict[str, Any]:
    return {
        "batches": within.batches,
        "rows": within.rows,
        "seconds": within.seconds,
        "sums_K": within.sums_K,
        "random": dict(within.random),
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
    within = content.get("within")
    return Progress(
        epochs_run=content["epochs_run"],
        rows_seen=content["rows_seen"],
        seconds=content["seconds"],
        best=_load_best(content["best"], content["module"]),
        within=Within(**within) if within else None,
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
