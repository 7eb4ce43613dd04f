"""What every step of one preparation is handed: the study, its lease, and a folder to work in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdsearch.core.canonical import canonical_json
from kdsearch.store import preparations
from kdsearch.store.preparations import PreparationLease
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.pulse import Pulse

TEACHER_STEP = "teacher"
"""The step of a checkpoint that names none: there was one step only once."""


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array as a ``.npy`` file without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class Preparing:
    """One preparation under way. Several of its steps train for long; each has a name to go on under."""

    context: WorkerContext
    lease: PreparationLease
    pulse: Pulse
    folder: Path

    @property
    def device(self) -> str:
        """Where teachers run."""
        return self.context.options.device

    def should_stop(self) -> bool:
        """Whether to let go at the next step."""
        return self.context.should_stop() or self.pulse.lost

    def say(self, text: str) -> None:
        """Put on record how far it is. Raises Stopped when it is to let go."""
        preparations.preparation_progress(self.context.store.engine, self.lease, text)
        if self.should_stop():
            raise Stopped

    def mention(self, text: str) -> None:
        """As `say`, in the middle of a step: nothing waits for it, and nothing ends by it."""
        preparations.mention(self.context.store.engine, self.lease, text)

    def keeps(self, step: str) -> Callable[[str, str], None]:
        """Takes what there is to say and the artifact from which whoever takes over goes on in `step`.

        Never lets go in the middle: what the checkpoint replaces is still to be removed.
        """

        def keep(text: str, state: str) -> None:
            blob = self.context.store.blobs.put(canonical_json({"step": step, "state": state}).encode())
            preparations.preparation_progress(self.context.store.engine, self.lease, text, blob)

        return keep

    def unfinished(self, step: str) -> str | None:
        """What a dead holder kept in this step, if that was the last one it kept anything in."""
        blobs, checkpoint = self.context.store.blobs, self.lease.checkpoint
        if checkpoint is None or not blobs.exists(checkpoint):
            return None
        found: dict[str, Any] = json.loads(blobs.open(checkpoint).read_text())
        if "step" not in found:
            return checkpoint if step == TEACHER_STEP else None
        return str(found["state"]) if found["step"] == step else None

    @contextmanager
    def training(self) -> Iterator[Callable[[], None]]:
        """Under the host lock; what this yields lets go, too, where nothing else asks for long."""
        with self.context.lock.training() as let_measure:

            def breathe() -> None:
                if self.should_stop():
                    raise Stopped
                let_measure()

            yield breathe

    def put_array(self, array: npt.NDArray[Any]) -> str:
        """Store an array as a ``.npy`` and return its SHA-256."""
        return self.context.store.blobs.put(array_bytes(array))
