"""Many at once: nobody shares a trial, no budget is overshot, no result is lost or counted twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from store_bench import Bench, config, epoch, result

from kdsearch.core.errors import LeaseLostError
from kdsearch.store import leases, reads, studies
from kdsearch.store.leases import Lease

NUM_THREADS = 6


def together(what: Callable[[str], list[Lease]]) -> list[Lease]:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        done = pool.map(what, [f"w{i}" for i in range(NUM_THREADS)])
        return [lease for mine in done for lease in mine]


def claim(bench: Bench, turn: Connection, worker: str, *, epochs: int) -> Lease | None:
    """What waits, else a new trial while both budgets have room for it."""
    study_id = bench.study.id
    leases.sweep(turn, study_id)
    waiting = leases.take_waiting(turn, study_id, worker, 60, can_measure=True)
    if waiting is not None:
        return waiting
    budget = studies.budget_state(turn, study_id)
    assert budget.max_epochs is not None
    if budget.num_trials >= budget.max_trials or budget.epochs_reserved + epochs > budget.max_epochs:
        return None
    return leases.insert_running(
        turn,
        study_id,
        number=budget.num_trials,
        optuna_trial_id=budget.num_trials,
        config=config(epochs=epochs),
        architecture_key="a",
        worker_id=worker,
        ttl_s=60,
    )


@pytest.mark.parametrize(("trials", "epochs", "num"), [(18, 1000, 18), (1000, 39, 13)])
def test_budgets_are_spent_to_the_last_and_never_beyond(
    crowded: Bench, trials: int, epochs: int, num: int
) -> None:
    with crowded.engine.begin() as connection:
        query = "UPDATE kdsearch.study SET budget_trials = :trials, budget_epochs = :epochs WHERE id = :id"
        values = {"trials": trials, "epochs": epochs, "id": crowded.study.id}
        connection.execute(text(query), values)

    def worker(name: str) -> list[Lease]:
        mine: list[Lease] = []
        while True:
            with leases.study_turn(crowded.engine, crowded.study.id) as turn:
                lease = claim(crowded, turn, name, epochs=3)
            if lease is None:
                return mine
            mine.append(lease)
            if lease.attempt == 1 and lease.number % 3 == 0:
                leases.give_back(crowded.engine, lease)
            else:
                leases.finish_complete(crowded.engine, lease, result(epochs_run=3), {})

    everything = Counter((lease.number, lease.attempt) for lease in together(worker))
    assert max(everything.values()) == 1
    rows = reads.trials(crowded.engine, crowded.study.id)
    assert Counter(row.state for row in rows) == {"complete": num}
    assert sum(row.epochs_run or 0 for row in rows) <= epochs


class Race:
    """Who finished what, when leases that ran out are swept, taken and finished at the same time."""

    def __init__(self, bench: Bench, num: int) -> None:
        self.bench, self.engine, self.num = bench, bench.engine, num
        self.late = [bench.start(number, worker=f"late{number}") for number in range(num)]
        self.start = threading.Barrier(4)
        self.won: dict[int, list[str]] = {number: [] for number in range(num)}
        self.swept: list[int] = []

    def finish(self, lease: Lease) -> None:
        quality = 0.6 if lease.worker_id == "heir" else 0.5
        with suppress(LeaseLostError):
            leases.record_epoch(self.engine, lease, epoch(1, quality=quality), "c" * 64)
            leases.finish_complete(self.engine, lease, result(quality), {})
            self.won[lease.number].append(lease.worker_id)

    def sweep(self) -> None:
        self.start.wait()
        for study_id in (self.bench.study.id, None) * 4:
            with self.engine.begin() as connection:
                self.swept.append(leases.sweep(connection, study_id))

    def finish_late(self) -> None:
        self.start.wait()
        for lease in self.late:
            self.finish(lease)

    def take(self) -> None:
        self.start.wait()
        for _ in range(self.num):
            with self.engine.begin() as connection:
                lease = leases.take_waiting(connection, self.bench.study.id, "heir", 60, can_measure=True)
            if lease is not None:
                self.finish(lease)


def test_sweepers_takers_and_finishers_lose_and_double_nothing(crowded: Bench) -> None:
    """All leases have run out: whoever holds a trial last finishes it, once, and for good."""
    race = Race(crowded, 12)
    for number in range(12):
        crowded.expire(number)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(what) for what in (race.sweep, race.sweep, race.finish_late, race.take)]:
            done.result()
    for row in reads.trials(crowded.engine, crowded.study.id):
        assert (row.state, len(race.won[row.number])) in (("complete", 1), ("waiting", 0))
        if row.state == "complete":
            expected = 0.6 if race.won[row.number] == ["heir"] else 0.5
            (only,) = reads.epochs(crowded.engine, crowded.study.id, row.number)
            assert only.scores is not None
            assert (row.quality, only.scores.quality) == (expected, expected)


def test_many_sweepers_take_each_trial_back_once(crowded: Bench) -> None:
    race = Race(crowded, 10)
    for number in range(10):
        crowded.expire(number)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(race.sweep) for _ in range(4)]:
            done.result()
    assert sum(race.swept) >= 10  # those of every study are counted, too
    assert {crowded.column("deaths", number) for number in range(10)} == {1}


def test_a_sweep_waits_for_nobody(crowded: Bench) -> None:
    """A row that somebody is writing is left for the next time, and nobody's turn is needed."""
    crowded.start(0)
    crowded.start(1)
    crowded.expire(0)
    crowded.expire(1)
    with leases.study_turn(crowded.engine, crowded.study.id) as turn:
        query = "SELECT 1 FROM kdsearch.trial WHERE study_id = :id AND number = 0 FOR UPDATE"
        turn.execute(text(query), {"id": crowded.study.id})
        with crowded.engine.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            assert leases.sweep(other, crowded.study.id) == 1
    assert (crowded.column("state", 0), crowded.column("state", 1)) == ("running", "waiting")
    assert crowded.sweep() == 1


# ---------------------------------------------------------------- the server's clock and the server's start


def test_a_server_that_has_just_started_takes_nobody_for_dead(crowded: Bench) -> None:
    """Nobody could renew while it was away."""
    crowded.start()
    crowded.expire()
    with crowded.engine.begin() as connection:
        connection.execute(text("SET LOCAL kdsearch.outage_grace_s = 1000000"))
        assert leases.sweep(connection, crowded.study.id) == 0
    leases.fail_attempts_of(crowded.engine, "w1", "crash", "")  # known, not guessed
    assert crowded.column("state") == "waiting"


@pytest.fixture
def in_tokyo(crowded: Bench) -> Iterator[Bench]:
    """Database and role live in time zones of their own, which are not what we set for ourselves."""
    database = crowded.engine.url.database
    with crowded.engine.begin() as connection:
        role = connection.execute(text("SELECT current_user")).scalar_one()
        connection.execute(text(f"ALTER DATABASE \"{database}\" SET timezone = 'Asia/Tokyo'"))
        connection.execute(
            text(f'ALTER ROLE "{role}" IN DATABASE "{database}" SET timezone = \'America/Los_Angeles\'')
        )
    yield crowded
    with crowded.engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{database}" RESET timezone'))
        connection.execute(text(f'ALTER ROLE "{role}" IN DATABASE "{database}" RESET timezone'))


@pytest.fixture
def plain(in_tokyo: Bench) -> Iterator[Engine]:
    """A client that sets nothing for itself."""
    engine = create_engine(in_tokyo.engine.url)
    yield engine
    engine.dispose()


def lease_and_let_expire(bench: Bench, writer: Engine, number: int, *, zone: str, others: Engine) -> None:
    with writer.begin() as connection:
        connection.execute(text(f"SET LOCAL TIME ZONE '{zone}'"))
        leases.insert_running(
            connection,
            bench.study.id,
            number=number,
            optuna_trial_id=number,
            config=config(),
            architecture_key="a",
            worker_id="w1",
            ttl_s=3600,
        )
    for reader in ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati"):
        with others.begin() as connection:
            connection.execute(text(f"SET LOCAL TIME ZONE '{reader}'"))
            assert leases.sweep(connection, bench.study.id) == 0, (zone, reader)
    bench.expire(number)
    with others.begin() as connection:
        assert leases.sweep(connection, bench.study.id) == 1, zone


def test_time_zones_of_server_role_and_clients_decide_nothing(in_tokyo: Bench, plain: Engine) -> None:
    with plain.begin() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "America/Los_Angeles"
    for number, (zone, writer) in enumerate(
        [("UTC", plain), ("Asia/Tokyo", in_tokyo.engine), ("Pacific/Kiritimati", plain)]
    ):
        lease_and_let_expire(in_tokyo, writer, number, zone=zone, others=plain)
        assert in_tokyo.take() is not None
