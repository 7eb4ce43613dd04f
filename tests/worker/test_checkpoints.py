"""Of a trial's two checkpoints the older one stands in for a newest that is damaged or gone."""

from __future__ import annotations

from typing import Any

import pytest

from kdsearch.core.errors import ArtifactError
from kdsearch.store.connect import Store
from kdsearch.worker.checkpoints import Checkpoints


def damage(store: Store, sha256: str) -> None:
    path = store.blobs.open(sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_the_checkpoint_before_the_newest_stands_in_for_it(store: Store, harm: str) -> None:
    checkpoints = Checkpoints(store.blobs, "study 1 trial 1")
    kept = []
    for state in (b"one", b"two", b"three"):
        kept.append(checkpoints.put(state))
        for superseded in checkpoints.followed_by(kept[-1]):
            store.blobs.remove(superseded)
    assert [store.blobs.exists(sha256) for sha256 in kept] == [False, True, True]
    assert checkpoints.read() == b"three"
    for sha256, expected in ((kept[2], b"two"), (kept[1], None)):
        damage(store, sha256) if harm == "damaged" else store.blobs.remove(sha256)
        assert Checkpoints(store.blobs, "study 1 trial 1", kept[2], kept[1]).read() == expected
    checkpoints.drop()
    assert not any(store.blobs.exists(sha256) for sha256 in kept)


def test_a_damaged_checkpoint_never_stands_in_for_a_later_one(store: Store) -> None:
    whole, damaged = (Checkpoints(store.blobs, "o").put(state) for state in (b"one", b"two"))
    damage(store, damaged)
    heir = Checkpoints(store.blobs, "o", damaged, whole)
    assert heir.read() == b"one"
    assert damaged in heir.kept, "it is still to be removed"
    third = heir.put(b"three")
    assert heir.followed_by(third) == (damaged,)
    assert (heir.newest, heir.previous) == (third, whole)


def test_a_store_that_is_away_is_not_a_lost_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(store.blobs, "study 1 trial 1")
    checkpoints.followed_by(checkpoints.put(b"one"))

    def away(self: Any, sha256: str) -> bool:
        raise ArtifactError("Cannot read artifacts") from ConnectionError("away")

    monkeypatch.setattr(type(store.blobs), "exists", away)
    with pytest.raises(ArtifactError, match="Cannot read"):
        checkpoints.read()
