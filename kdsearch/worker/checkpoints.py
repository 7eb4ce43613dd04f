"""Checkpoints: the newest ones of a trial or a fine-tuning are kept, superseded ones are removed.

The stored bytes begin with a line that names their owner, so that two owners whose training states
happen to be equal never share a blob, and removing one's cannot take the other's.
"""

from __future__ import annotations

import structlog

from kdsearch.core.blobs import Blobs
from kdsearch.core.errors import ArtifactError

log = structlog.get_logger()


class Checkpoints:
    """The checkpoints of one owner, e.g. ``study 3 trial 14``; a trial has two, should one be damaged."""

    def __init__(
        self, blobs: Blobs, owner: str, newest: str | None = None, previous: str | None = None
    ) -> None:
        self._blobs = blobs
        self._owner = owner
        self._header = f"kdsearch checkpoint of {owner}\n".encode()
        self.newest = newest
        self.previous = previous
        self._useless: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """All there are."""
        return tuple(dict.fromkeys(one for one in (self.newest, self.previous, *self._useless) if one))

    def read(self) -> bytes | None:
        """The newest training state that is whole, as it was put; None if there is none.

        ArtifactError if the store cannot be reached.
        """
        for sha256 in self.kept:
            state = self._whole(sha256)
            if state is not None:
                return state
            self._pass_over(sha256)
        if self.kept:
            log.warning("no checkpoint is left: from the start again", of=self._owner)
        return None

    def _whole(self, sha256: str) -> bytes | None:
        if not self._blobs.exists(sha256):
            log.warning("a checkpoint is gone: going on from the one before", of=self._owner, artifact=sha256)
            return None
        try:
            return self._blobs.open(sha256).read_bytes().partition(b"\n")[2]
        except ArtifactError as error:
            self._blobs.exists(sha256)  # raises where it is the store that is away
            log.warning(
                "a checkpoint is damaged: going on from the one before", of=self._owner, error=error.what
            )
            return None

    def _pass_over(self, sha256: str) -> None:
        """It must never stand in for a later one."""
        self._useless += (sha256,)
        if sha256 == self.newest:
            self.newest, self.previous = self.previous, None
        else:
            self.previous = None

    def put(self, state: bytes) -> str:
        """Store a training state; the one before stays until `supersede`, or what `followed_by` names."""
        return self._blobs.put(self._header + state)

    def followed_by(self, sha256: str) -> tuple[str, ...]:
        """Call when `sha256` is under way to the record: what nobody needs once it is there."""
        if sha256 == self.newest:
            return ()
        removed = dict.fromkeys((self.previous, *self._useless))
        kept = (None, sha256, self.newest)
        self.previous, self.newest, self._useless = self.newest, sha256, ()
        return tuple(one for one in removed if one and one not in kept)

    def supersede(self, sha256: str) -> None:
        """Call when `sha256` is on record: what was the newest is removed."""
        before, self.newest = self.newest, sha256
        if before is not None and before != sha256:
            self._blobs.remove(before)

    def drop(self) -> None:
        """Call when the owner is finished: nothing will go on from here."""
        for sha256 in self.kept:
            self._blobs.remove(sha256)
        self.newest = self.previous = None
        self._useless = ()
