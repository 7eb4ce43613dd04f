"""Claiming: several workers at once, with a trainer that costs nothing, never overshoot any budget."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch.core.errors import TooManyFailuresError
from kdsearch.core.records import (
    Decision,
    EpochReport,
    Failure,
    HardwareProfile,
    Latency,
    Scores,
    TrialConfig,
    TrialResult,
    Tried,
)
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.search.asking import Search
from kdsearch.search.known import Known
from kdsearch.search.plan import Plan
from kdsearch.store import leases, reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.history import History
from kdsearch.store.leases import Lease
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import NewStudy, StudyRecord
from kdsearch.worker import claim as claim_module
from kdsearch.worker import rungs
from kdsearch.worker.claim import Claim, Claims
from kdsearch.worker.context import WorkerOptions
from kdsearch.worker.material import Material

PROFILE = HardwareProfile(
    device_model="A CPU", device="cpu", runtime="onnx", threads=1, batch_size=1, length_policy="own"
)


def share(config: TrialConfig, of: str) -> float:
    """A number between 0 and 1 that a configuration has for ever."""
    digest = hashlib.sha256(f"{of} {config.key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def latency_ms(config: TrialConfig) -> float:
    return float(cast(int, config.student_params["filters"])) / 64


class Office:
    """One study, and as many workers on it as a test wants."""

    def __init__(self, store: Store, **spec: Any) -> None:
        self.store = store
        self.spec = StudySpec.model_validate(
            {
                "version": 1,
                "name": "claims",
                "data": {"train": "unread", "validation": "unread"},
                "teacher": {"model": "unread"},
                "students": [{"type": "textcnn", "filters": [64, 128, 256]}],
                "training": {"epochs": 4},
                "search": {"sampler": "random"},
                **spec,
            }
        )
        storage = optuna_storage(store)
        self.search = Search.create(storage, "claims", self.plan)
        self.study = self._study()
        self.overshot: list[str] = []

    @property
    def plan(self) -> Plan:
        return Plan(self.spec)

    def _study(self) -> StudyRecord:
        new = NewStudy(
            name="claims",
            optuna_name="claims",
            spec_text="",
            spec_json=spec_to_json(self.spec),
            spec_sha256="0" * 64,
            dataset_sha256="1" * 64,
            data_fingerprint="2" * 64,
            artifacts_url=self.store.artifacts_url,
            budget=self.spec.budget,
        )
        return studies.create_study(self.store.engine, new)

    def worker(self, name: str = "one", *, can_measure: bool = True) -> Claims:
        context = SimpleNamespace(
            store=self.store,
            study=self.study,
            spec=self.spec,
            options=WorkerOptions(),
            worker_id=name,
            history=History(self.study.id, "p90_ms", with_epochs=rungs.stops_early(self.spec)),
        )
        material = SimpleNamespace(
            context=context,
            architecture=lambda config: str(config.student_params["filters"]) * 16,
            figures=SimpleNamespace(question=lambda: latency_ms),
            quality_floor=0.0,
        )
        search = Search.open(optuna_storage(self.store), "claims", self.plan)
        return Claims(cast(Material, material), search, can_measure=can_measure)

    # ---------------------------------------------------------------- a trainer that costs nothing

    def train(self, claims: Claims, lease: Lease) -> None:
        engine, config = self.store.engine, lease.config
        leases.record_latency(engine, lease, latency(latency_ms(config)))
        if share(config, "luck") < 0.1 and not lease.repeat:
            leases.finish_failed(engine, lease, Failure(kind="exception", message="bad luck"))
            return
        judge = rungs.Judge(claims.material, lease)
        done = reads.trial(engine, self.study.id, lease.number).epochs_run or 0
        for epoch in range(1 if lease.repeat else done + 1, config.epochs + 1):
            report = EpochReport(
                stage="distil",
                epoch=epoch,
                rows_seen=100 * epoch,
                losses={"total": 0.5},
                scores=scores(share(config, "quality") * epoch / config.epochs),
                seconds=1.0,
            )
            leases.record_epoch(engine, lease, report, "c" * 64)
            decision = judge(report) if epoch < config.epochs else None
            if decision is not None and decision.action == "pause":
                leases.pause(engine, lease, decision)
                return
        leases.finish_complete(engine, lease, result(share(config, "quality"), config.epochs), {})

    def work(self, name: str) -> None:
        """Until nothing is left to do; whatever is overshot meanwhile is written down."""
        claims = self.worker(name)
        while (claim := self.next(claims)) not in ("done", "gone"):
            if isinstance(claim, Lease):
                self.train(claims, claim)
                claims.leave_one_ready()

    def next(self, claims: Claims) -> Claim:
        claim = claims.take()
        claim = claims.take(conclude=True) if claim == "close" else claim
        with leases.study_turn(self.store.engine, self.study.id) as conn:
            budget = studies.budget_state(conn, self.study.id)
        if budget.num_trials > budget.max_trials:
            self.overshot.append(f"{budget.num_trials} trials")
        if budget.max_epochs is not None and budget.epochs_reserved > budget.max_epochs:
            self.overshot.append(f"{budget.epochs_reserved} epochs")
        return claim

    def crowd(self, size: int) -> None:
        errors: list[BaseException] = []

        def work(name: str) -> None:
            try:
                self.work(name)
            except BaseException as error:  # noqa: BLE001 - a thread tells nobody by itself
                errors.append(error)

        threads = [threading.Thread(target=work, args=(f"worker-{i}",)) for i in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    @property
    def tried(self) -> Sequence[Tried]:
        return reads.history(self.store.engine, self.study.id, "p90_ms", with_epochs=True)


def latency(p90_ms: float) -> Latency:
    return Latency(
        p50_ms=p90_ms,
        p90_ms=p90_ms,
        p99_ms=p90_ms,
        mean_ms=p90_ms,
        num_queries=10,
        seconds=1.0,
        size_mb=1.0,
        num_params=1,
        tokenize_p50_ms=0.1,
        noisy=False,
        profile=PROFILE,
    )


def scores(quality: float) -> Scores:
    return Scores(quality=quality, accuracy=quality, macro_f1=quality, nll=0.5, recall={"a": quality})


def result(quality: float, epochs: int) -> TrialResult:
    return TrialResult(
        scores=scores(quality),
        best_epoch=epochs,
        epochs_run=epochs,
        rows_seen=100 * epochs,
        train_seconds=1.0,
        artifact="a" * 64,
        validation_logits="b" * 64,
    )


@pytest.fixture
def office(store: Store) -> Callable[..., Office]:
    def open_office(**spec: Any) -> Office:
        return Office(store, **spec)

    return open_office


PROMOTING = {"sampler": "random", "pruner": "mo_asha_promotion", "rungs": {"first": 1, "factor": 2}}


def test_a_crowd_spends_exactly_its_trials(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 20, "failed": 20})
    study.crowd(4)
    assert study.overshot == []
    assert len(study.tried) == 20
    assert {t.state for t in study.tried} == {"complete", "failed"}
    assert len({t.config.key for t in study.tried}) == 20
    assert studies.find_study(study.store.engine, "claims").state == "done"


def test_a_crowd_with_promotions_never_exceeds_its_epochs(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 40, "epochs": 80, "failed": 30}, search=PROMOTING)
    study.crowd(4)
    assert study.overshot == []
    run = sum(max(t.qualities, default=0) for t in study.tried)
    assert 80 - 4 < run <= 80
    assert {t.state for t in study.tried} <= {"complete", "stopped", "failed"}
    promoted = [
        row.decision
        for t in study.tried
        for row in reads.decisions(study.store.engine, study.study.id, t.number)
        if row.decision.action == "promote"
    ]
    assert promoted, "the test is about promotions"


def test_control_arms_are_judged_and_never_paused(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Decision(action="pause", rule="never", reason="as ever", epoch=1)
    stern = SimpleNamespace(judge=lambda trial, situation: pause, promotions=lambda situation: [])
    monkeypatch.setattr(rungs, "pruner", lambda spec: stern)
    study = office(budget={"trials": 6, "failed": 6}, search=PROMOTING)
    study.work("one")
    rows = reads.trials(study.store.engine, study.study.id)
    assert {r.state for r in rows if r.origin == "control"} <= {"complete", "failed"}
    assert {r.state for r in rows if r.origin != "control"} <= {"stopped", "failed"}


def test_who_was_paused_for_want_of_hours_goes_on_when_there_are_more(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 2})
    lease = cast(Lease, study.next(study.worker()))
    leases.record_latency(study.store.engine, lease, latency(1.0))
    spent = Decision(action="pause", rule="budget", reason="the study has spent its hours")
    leases.pause(study.store.engine, lease, spent)
    heir = study.next(study.worker("two"))
    assert isinstance(heir, Lease)
    assert (heir.number, heir.attempt) == (lease.number, 2)
    assert study.next(study.worker("three")) != heir


def test_a_study_that_ends_tells_the_orphans_that_nobody_will_train(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 1, "failed": 1})
    claims = study.worker()
    lease = cast(Lease, study.next(claims))
    orphan = study.search.ask(Known(tried=study.tried))
    assert orphan is not None
    study.train(claims, lease)
    study.work("two")
    assert study.search.orphans({lease.number}, Known()) == []
    assert [t.number for t in study.tried] == [lease.number]


def test_finalists_are_trained_again_once_and_on_top_of_the_budget(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 8, "failed": 8}, finalists={"max": 2, "seeds": [1, 2]})
    study.crowd(3)
    assert study.overshot == []
    repeats = reads.repeats(study.store.engine, study.study.id)
    numbers = {row.number for row in repeats}
    assert 1 <= len(numbers) <= 3  # the front, and the best control where it is not on it
    assert sorted((r.number, r.seed) for r in repeats) == sorted((n, s) for n in numbers for s in (1, 2))
    assert {r.state for r in repeats} == {"complete"}
    assert len(study.tried) == 8


def test_a_raised_budget_opens_the_study_and_leaves_the_stopped_alone(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 8, "failed": 30}, search=PROMOTING)
    study.work("one")
    stopped = {t.number for t in study.tried if t.state == "stopped"}
    assert stopped, "the test is about stopped trials"
    studies.raise_budget(
        study.store.engine, study.study.id, study.spec.budget.model_copy(update={"trials": 12})
    )
    study.work("two")
    assert len(study.tried) == 12
    assert stopped <= {t.number for t in study.tried if t.state == "stopped"}


def test_a_settled_front_ends_the_study(office: Callable[..., Office]) -> None:
    plateau = {"trials": 3, "gain": 0.9}
    study = office(budget={"trials": 100, "failed": 100}, search={"sampler": "random", "plateau": plateau})
    study.work("one")
    assert 3 < len(study.tried) < 30


def test_an_exhausted_space_ends_the_study(office: Callable[..., Office]) -> None:
    fixed: dict[str, Any] = {
        "students": [
            {
                "type": "textcnn",
                "filters": [64, 128, 256],
                "kernel_sizes": [[2, 3]],
                "embed_dim": 8,
                "embedding": "random",
                "vocabulary": "teacher",
                "dropout": 0.1,
            }
        ],
        "schemes": ["none"],
        "training": {"epochs": 4, "learning_rate": 1e-3, "batch_size": 32},
    }
    study = office(budget={"trials": 20, "failed": 20}, **fixed)
    study.work("one")
    done = [t for t in study.tried if t.state == "complete"]
    assert len({t.config.key for t in study.tried}) == 3 >= len(done)


def test_one_proposal_is_ready_where_there_are_many_trials(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_module, "MANY", 3)
    study = office(budget={"trials": 6, "failed": 6})
    claims = study.worker()
    for number in range(2):
        study.train(claims, cast(Lease, study.next(claims)))
        claims.leave_one_ready()
        assert len(study.tried) == number + 1, "a small study has none"
    study.train(claims, cast(Lease, study.next(claims)))
    for _ in range(2):  # one is enough
        claims.leave_one_ready()
        assert [t.state for t in study.tried if t.number > 2] == ["waiting"]
    newcomer = study.worker("newcomer")

    def never(*args: Any) -> None:
        raise AssertionError("a newcomer asked although a proposal was ready")

    monkeypatch.setattr(newcomer.search, "ask", never)
    monkeypatch.setattr(newcomer.search, "orphans", never)
    taken = study.next(newcomer)
    assert isinstance(taken, Lease)
    assert (taken.number, taken.attempt, taken.worker_id) == (3, 1, "newcomer")


def test_too_many_failures_end_it_for_everybody(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 9, "failed": 0})
    claims = study.worker()
    lease = cast(Lease, study.next(claims))
    leases.finish_failed(study.store.engine, lease, Failure(kind="exception", message="bad luck"))
    for worker in (claims, study.worker("two")):
        with pytest.raises(TooManyFailuresError, match="1 trials"):
            worker.take()


def test_a_deleted_study_and_a_paused_one_hand_nothing_out(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 9})
    claims = study.worker()
    with leases.study_turn(study.store.engine, study.study.id) as conn:
        studies.set_state(conn, study.study.id, "paused")
    assert claims.take() == "wait"
    with study.store.engine.begin() as conn:
        conn.exec_driver_sql("DELETE FROM kdsearch.study")
    assert claims.take() == "gone"


def test_an_orphan_is_adopted_under_its_number(office: Callable[..., Office]) -> None:
    study = office(budget={"trials": 2})
    asked = study.search.ask(Known())
    assert asked is not None
    lease = study.next(study.worker())
    assert isinstance(lease, Lease)
    assert (lease.number, lease.config) == (asked.number, asked.config)
