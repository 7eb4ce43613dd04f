"""Checkpoints: the newest one of a trial or a fine-tuning is kept, superseded ones are removed.

The stored bytes begin with a line that names their owner, so that two owners whose training states
happen to be equal never share a blob, and removing one's cannot take the other's.
"""

from __future__ import annotations

from kdsearch.core.blobs import Blobs


class Checkpoints:
    """The checkpoints of one owner, e.g. ``study 3 trial 14``."""

    def __init__(self, blobs: Blobs, owner: str, newest: str | None = None) -> None:
        self._blobs = blobs
        self._header = f"kdsearch checkpoint of {owner}\n".encode()
        self.newest = newest

    def read(self) -> bytes | None:
        """The newest training state, as it was put; None if there is none, or no longer."""
        if self.newest is None or not self._blobs.exists(self.newest):
            return None
        return self._blobs.open(self.newest).read_bytes().partition(b"\n")[2]

    def put(self, state: bytes) -> str:
        """Store a training state; the one before stays until `supersede`."""
        return self._blobs.put(self._header + state)

    def supersede(self, sha256: str) -> None:
        """Call when `sha256` is on record: what was the newest is removed."""
        before, self.newest = self.newest, sha256
        if before is not None and before != sha256:
            self._blobs.remove(before)

    def drop(self) -> None:
        """Call when the owner is finished: nothing will go on from here."""
        if self.newest is not None:
            self._blobs.remove(self.newest)
            self.newest = None
