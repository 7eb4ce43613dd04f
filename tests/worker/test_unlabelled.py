"""An unlabelled pool: the teacher labels it, distilled trials read it, controls see as many rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kdsearch.core.studyfile import StudyFile
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import UNKNOWN, TokenPool
from kdsearch.store import reads
from kdsearch.store.connect import Store

Write = Callable[..., StudyFile]
Finish = Callable[[StudyFile], str]

TEST = "  test: synthetic://spam_opinions?rows=80&seed=3\n"
UNLABELLED = "  unlabelled: synthetic://spam_opinions?rows=100&seed=4\n"


@pytest.fixture
def prepared(store: Store, write_study: Write, finish: Finish) -> Prepared:
    """Of a study that has run: two controls, two distilled trials, 160 rows with labels and 100 without."""
    assert finish(write_study(trials=4, epochs=2, replace=(TEST, TEST + UNLABELLED))) == "done"
    sha256 = reads.study(store.engine, "tiny").prepared
    assert sha256 is not None
    return Prepared.load(store.blobs, sha256)


def test_the_teacher_labels_it_and_every_scheme_sees_as_many_rows(store: Store, prepared: Prepared) -> None:
    pool = TokenPool.load(store.blobs.open(prepared.pools["unlabelled"].tokens))
    logits = np.load(store.blobs.open(str(prepared.pools["unlabelled"].logits)))
    assert set(pool.labels_N.tolist()) == {-1}
    assert logits.shape == (100, 2)
    assert np.isfinite(logits).all()
    study = reads.study(store.engine, "tiny")
    terms = {}
    for trial in reads.trials(store.engine, study.id):
        epochs = reads.epochs(store.engine, study.id, trial.number)
        assert [e.rows_seen for e in epochs] == [260, 520]
        terms[trial.scheme] = set(epochs[0].losses) - {"total"}
    assert terms["none"] == {"hard"}
    assert "soft" in terms["offline"]


def test_its_tokens_have_rows_of_their_own_and_those_of_scored_pools_have_not(
    store: Store, prepared: Prepared
) -> None:
    table = np.load(store.blobs.open(prepared.id_table))
    read = {name: set(TokenPool.load(store.blobs.open(p.tokens)).ids) for name, p in prepared.pools.items()}
    trained = read["train"] | read["unlabelled"]
    assert read["unlabelled"] - read["train"], "or this would show nothing"
    assert (table[sorted(trained)] != UNKNOWN).all()
    unseen = (read["validation"] | read["test"]) - trained
    assert unseen, "or this would show nothing"
    assert set(table[sorted(unseen)].tolist()) == {UNKNOWN}
