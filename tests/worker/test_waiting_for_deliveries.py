"""What a worker waits for: what another one left comes first, and a delivery that hangs is found out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kdsearch.core.records import TrialConfig
from kdsearch.core.studyfile import StudyFile
from kdsearch.store.connect import Store
from kdsearch.store.leases import Lease
from kdsearch.worker import delivery as delivery_module
from kdsearch.worker.context import Progress, WorkerContext, WorkerOptions
from kdsearch.worker.create import create_or_resume
from kdsearch.worker.delivery import Delivery
from kdsearch.worker.loop import open_context
from kdsearch.worker.parcels import Parcel
from kdsearch.worker.spool import Spool, spool_folder

CONFIG = TrialConfig(
    student="bag",
    student_params={"hidden": 8},
    scheme="none",
    scheme_params={},
    learning_rate=1e-3,
    batch_size=32,
    epochs=3,
    seed=17,
)


class Asked:
    """Whether to stop: never, but it counts the questions."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return False


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def context(
    store: Store, write_study: Callable[..., StudyFile], options: WorkerOptions, asked: Asked
) -> WorkerContext:
    create_or_resume(store, write_study(), on_progress=lambda _: None)
    return open_context(store, "tiny", options, asked)


@pytest.fixture
def lost(context: WorkerContext) -> Parcel:
    """Something to deliver that is refused, for there is no such trial."""
    lease = Lease(
        study_id=context.study.id, number=0, optuna_trial_id=0, attempt=1, worker_id="gone", config=CONFIG
    )
    return Parcel(kind="give_back", lease=lease)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_what_another_left_is_delivered_before_anything_is_claimed(
    context: WorkerContext, lost: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LOOK_S", 600.0)  # nobody looks by himself
    delivery = Delivery(context)
    folder = spool_folder(context.store.home, context.study) / "gone"
    with delivery.delivering():
        spool = Spool.take(folder)
        assert spool is not None
        spool.write(lost.to_text())
        spool.close()
        assert not delivery.refused(lost.lease)
        delivery.collect()
        assert delivery.refused(lost.lease)
        assert list(folder.glob("*.json")) == []
    assert not folder.exists()


def test_nothing_is_claimed_while_another_worker_delivers_what_was_left(
    context: WorkerContext, lost: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LOOK_S", 600.0)
    let_go, record = threading.Event(), Parcel.record

    def slow(self: Parcel, engine: Any) -> None:
        let_go.wait(60)
        record(self, engine)

    monkeypatch.setattr(Parcel, "record", slow)
    first, second = Delivery(context), Delivery(replace(context, worker_id="second"))
    with first.delivering(), second.delivering():
        spool = Spool.take(spool_folder(context.store.home, context.study) / "gone")
        assert spool is not None
        spool.write(lost.to_text())
        spool.close()
        adopting = threading.Thread(target=first.collect)
        adopting.start()
        wait_for(lambda: bool(first._queue))
        waiting = threading.Thread(target=second.collect)
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive(), "it did not wait for what the first one delivers"
        let_go.set()
        adopting.join(60)
        waiting.join(60)
        assert not waiting.is_alive()
        assert first.refused(lost.lease)


def test_waiting_for_a_delivery_that_hangs_is_no_step(
    context: WorkerContext, lost: Parcel, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, record = threading.Event(), Parcel.record

    def stuck(self: Parcel, engine: Any) -> None:
        let_go.wait(60)
        record(self, engine)

    monkeypatch.setattr(Parcel, "record", stuck)
    delivery = Delivery(context)
    with delivery.delivering():
        delivery.send(lost.kind, lost.lease)
        waiting = threading.Thread(target=delivery.settle)
        waiting.start()
        steps = context.progress.steps
        wait_for(lambda: context.progress.steps > steps + 5)  # it may be slow
        monkeypatch.setattr(delivery_module, "SLOWEST_S", 0.0)
        before = asked.times
        wait_for(lambda: asked.times > before + 2)
        steps, before = context.progress.steps, asked.times
        wait_for(lambda: asked.times > before + 5)
        assert context.progress.steps == steps
        let_go.set()
        waiting.join(60)
        assert not waiting.is_alive()
        steps = context.progress.steps
        context.should_stop()
        assert context.progress.steps == steps + 1, "afterwards its own steps count again"


def test_steps_count_if_somebody_says_so() -> None:
    progress = Progress()
    for counts, expected in ((False, 0), (True, 1)):
        with progress.counting_if(lambda counts=counts: counts):  # type: ignore[misc]
            progress.step()
        assert progress.steps == expected
    progress.step()
    assert progress.steps == 2
