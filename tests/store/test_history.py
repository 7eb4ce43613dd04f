"""What is read once and kept must equal what is read anew, whatever happened to the trials between."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from sqlalchemy import event
from store_bench import WRITES, Bench, decision

from kdsearch.core.errors import LeaseLostError
from kdsearch.core.records import Tried
from kdsearch.store import leases, reads
from kdsearch.store.history import History
from kdsearch.store.leases import Lease

FINISHES = ["finish_complete"] * 4


class Fate:
    """Things that happen to the trials of a study, at random."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.rng = bench, random.Random(seed)
        self.unused = list(range(12))
        self.held: list[Lease] = []
        """Also of attempts that are over: zombies write too."""

    def strikes(self) -> None:
        """One event."""
        events = (self.begin, self.take, self.sweep, self.promote, self.close, self.put_ready, self.repeat)
        self.rng.choice((*events, self.begin, self.write, self.write, self.write, self.write, self.write))()

    def begin(self) -> None:
        """In any order of numbers, as orphans are adopted late."""
        if self.unused:
            number = self.unused.pop(self.rng.randrange(len(self.unused)))
            self.held.append(self.bench.start(number, seed=number, worker=f"w{number}"))

    def put_ready(self) -> None:
        if self.unused:
            number = self.unused.pop(self.rng.randrange(len(self.unused)))
            lease = self.bench.start(number, seed=number)
            leases.give_back(self.bench.engine, lease)

    def take(self) -> None:
        lease = self.bench.take(f"t{self.rng.randrange(3)}")
        self.held += [] if lease is None else [lease]

    def write(self) -> None:
        if self.held:
            lease = self.rng.choice(self.held[-3:] if self.rng.random() < 0.7 else self.held)
            with suppress(LeaseLostError):
                WRITES[self.rng.choice([*sorted(WRITES), *FINISHES])](self.bench.engine, lease)

    def sweep(self) -> None:
        running = [t.number for t in self.anew(with_epochs=False) if t.state == "running"]
        for number in running:
            if self.rng.random() < 0.5:
                with suppress(AssertionError):  # its repeat runs, or nothing does
                    self.bench.expire(number)
        self.bench.sweep()

    def promote(self) -> None:
        with leases.study_turn(self.bench.engine, self.bench.study.id) as turn:
            for number in range(12):
                leases.promote(turn, self.bench.study.id, number, decision("promote"))

    def close(self) -> None:
        if self.rng.random() < 0.3:
            with leases.study_turn(self.bench.engine, self.bench.study.id) as turn:
                leases.close_study(turn, self.bench.study.id)

    def repeat(self) -> None:
        wanted = [(t.number, 99) for t in self.anew(with_epochs=False) if t.state == "complete"]
        with leases.study_turn(self.bench.engine, self.bench.study.id) as turn:
            leases.insert_repeats(turn, self.bench.study.id, wanted[:1])

    def anew(self, *, with_epochs: bool) -> list[Tried]:
        return reads.history(self.bench.engine, self.bench.study.id, "p90_ms", with_epochs=with_epochs)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_is_what_would_be_read(crowded: Bench, seed: int) -> None:
    fate = Fate(crowded, seed)
    kept = {curves: History(crowded.study.id, "p90_ms", with_epochs=curves) for curves in (True, False)}
    ended: set[str] = set()
    for _ in range(60):
        fate.strikes()
        for curves, history in kept.items():
            if fate.rng.random() < 0.7:
                assert history.read(crowded.engine) == fate.anew(with_epochs=curves)
        ended |= {trial.state for trial in fate.anew(with_epochs=False)}
    assert {"complete", "waiting"} <= ended


def test_what_a_broken_turn_wrote_is_not_kept(crowded: Bench) -> None:
    history = History(crowded.study.id, "p90_ms", with_epochs=False)
    leases.pause(crowded.engine, crowded.start(0), decision("pause"))
    with crowded.engine.connect() as connection:
        turn = connection.begin()
        leases.close_study(connection, crowded.study.id)
        assert [trial.state for trial in history.read(connection)] == ["stopped"]
        turn.rollback()
    assert [trial.state for trial in history.read(crowded.engine)] == ["paused"]


def test_what_is_settled_is_not_read_again(crowded: Bench) -> None:
    history = History(crowded.study.id, "p90_ms", with_epochs=True)
    for number in range(5):
        crowded.complete(number, seed=number)
    first = history.read(crowded.engine)
    rows: list[int] = []

    def count(_connection: object, cursor: object, statement: str, *_rest: object) -> None:
        if "kdsearch.epoch" in statement:
            rows.append(cursor.rowcount)  # type: ignore[attr-defined]

    crowded.start(9, seed=9)
    event.listen(crowded.engine, "after_cursor_execute", count)
    try:
        second = history.read(crowded.engine)
    finally:
        event.remove(crowded.engine, "after_cursor_execute", count)
    assert rows == [1]
    assert [trial.number for trial in second] == [0, 1, 2, 3, 4, 9]
    assert all(one is other for one, other in zip(first, second, strict=False))
