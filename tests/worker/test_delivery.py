"""What a worker sends reaches its place once and in order, whatever is away meanwhile and whoever dies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch.core.errors import ArtifactError, StorageError
from kdsearch.core.records import EpochReport, Scores, TrialConfig, TrialResult
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.measure.hostlock import HostLock
from kdsearch.store import leases, reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.leases import Lease
from kdsearch.store.studies import NewStudy
from kdsearch.store.transactions import UnavailableError
from kdsearch.worker import delivery as delivery_module
from kdsearch.worker import spool as spool_module
from kdsearch.worker.context import WorkerContext, WorkerOptions
from kdsearch.worker.delivery import Delivery
from kdsearch.worker.parcels import RECORD, Parcel
from kdsearch.worker.spool import Spool, spool_folder

SCORES = Scores(quality=0.75, accuracy=0.75, macro_f1=0.5, nll=0.3, recall={"ham": 0.5})
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


@pytest.fixture
def context(store: Store, tmp_path: Path) -> WorkerContext:
    """A worker of a study of which nothing but its rows exists."""
    spec = StudySpec.model_validate(
        {
            "version": 1,
            "name": "sent",
            "data": {"train": "unread", "validation": "unread"},
            "teacher": {"model": "unread"},
            "budget": {"trials": 4},
        }
    )
    record = studies.create_study(
        store.engine,
        NewStudy(
            name="sent",
            optuna_name="sent",
            spec_text="",
            spec_json=spec_to_json(spec),
            spec_sha256="0" * 64,
            dataset_sha256="1" * 64,
            data_fingerprint="2" * 64,
            artifacts_url=store.artifacts_url,
            budget=spec.budget,
        ),
    )
    return WorkerContext(
        store=store,
        study=record,
        spec=spec,
        inputs=cast(Any, SimpleNamespace()),
        options=WorkerOptions(lock_folder=tmp_path / "locks"),
        worker_id="host-1",
        lock=HostLock(tmp_path / "locks"),
        should_stop=lambda: False,
    )


@pytest.fixture
def lease(context: WorkerContext) -> Lease:
    return leased(context)


def leased(context: WorkerContext, number: int = 0) -> Lease:
    with leases.study_turn(context.store.engine, context.study.id) as connection:
        return leases.insert_running(
            connection,
            context.study.id,
            number=number,
            optuna_trial_id=number,
            config=CONFIG,
            architecture_key="a" * 64,
            worker_id=context.worker_id,
            ttl_s=600.0,
        )


def report(epoch: int) -> EpochReport:
    return EpochReport(
        stage="distil", epoch=epoch, rows_seen=10 * epoch, losses={"total": 1.0}, scores=SCORES, seconds=1.0
    )


def send_epoch(delivery: Delivery, lease: Lease, epoch: int) -> str:
    sha256 = delivery.put(f"state after epoch {epoch}".encode())
    delivery.send("epoch", lease, {"report": asdict(report(epoch)), "checkpoint": sha256})
    return sha256


def send_result(delivery: Delivery, lease: Lease) -> TrialResult:
    result = TrialResult(
        scores=SCORES,
        best_epoch=1,
        epochs_run=3,
        rows_seen=30,
        train_seconds=3.0,
        artifact=delivery.put(b"a student"),
        validation_logits=delivery.put(b"logits"),
    )
    delivery.send("complete", lease, {"result": asdict(result), "constraints": {"size_mb": -1.0}})
    return result


def epochs(context: WorkerContext) -> list[int]:
    return [row.epoch for row in reads.epochs(context.store.engine, context.study.id, 0)]


def state(context: WorkerContext) -> str:
    return reads.trial(context.store.engine, context.study.id, 0).state


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Postgres takes nothing of a worker's until the event is set; `.count` says how often it refused."""
    back = threading.Event()
    back.count = 0  # type: ignore[attr-defined]
    original = Parcel.record

    def record(self: Parcel, engine: Any) -> None:
        if not back.is_set():
            back.count += 1  # type: ignore[attr-defined]
            raise UnavailableError("Postgres is not available")
        original(self, engine)

    monkeypatch.setattr(Parcel, "record", record)
    monkeypatch.setattr(delivery_module, "LONGEST_WAIT_S", 0.05)
    yield back
    back.set()


def test_a_worker_goes_on_while_postgres_is_away(
    context: WorkerContext, lease: Lease, away: threading.Event
) -> None:
    delivery = Delivery(context)
    with delivery.delivering():
        shas = [send_epoch(delivery, lease, epoch) for epoch in (1, 2, 3)]
        result = send_result(delivery, lease)
        wait_for(lambda: away.count > 2)  # type: ignore[attr-defined]
        assert state(context) == "running"
        assert epochs(context) == []
        assert delivery.open(shas[2]).read_bytes() == b"state after epoch 3"
        away.set()
        delivery.settle()
    assert epochs(context) == [1, 2, 3]
    row = reads.trial(context.store.engine, context.study.id, 0)
    assert (row.state, row.artifact) == ("complete", result.artifact)
    assert context.store.blobs.open(result.artifact).read_bytes() == b"a student"
    assert not spool_folder(context.store.home, context.study).joinpath("host-1").exists()


def test_a_worker_goes_on_while_the_artifact_store_is_away(
    context: WorkerContext, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    original = type(context.store.blobs).put

    def full(self: Any, data: Any) -> str:
        tries.append(data)
        if len(tries) < 4:
            raise ArtifactError("Cannot write artifacts") from OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(type(context.store.blobs), "put", full)
    monkeypatch.setattr(delivery_module, "LONGEST_WAIT_S", 0.05)
    delivery = Delivery(context)
    with delivery.delivering():
        sha256 = send_epoch(delivery, lease, 1)
        delivery.settle()
    assert len(tries) == 4
    assert epochs(context) == [1]
    assert context.store.blobs.exists(sha256)


DIES = """\
import sys, os, pathlib
from dataclasses import asdict
from kdsearch.worker.parcels import Parcel
from kdsearch.worker.spool import Spool
spool = Spool.take(pathlib.Path(sys.argv[1]))
for text in sys.stdin.read().splitlines():
    parcel = Parcel.from_text(text)
    spool.put(b"state of a killed worker")
    spool.write(text)
print("written", flush=True)
sys.stdin = open(sys.argv[2])  # a fifo: until it is killed
sys.stdin.read()
"""


def test_a_later_worker_delivers_what_a_killed_one_left(
    context: WorkerContext, lease: Lease, tmp_path: Path
) -> None:
    folder = spool_folder(context.store.home, context.study) / "host-1"
    home = Spool.take(tmp_path / "elsewhere")
    assert home is not None
    sha256 = home.put(b"state of a killed worker")
    values = {"report": asdict(report(1)), "checkpoint": sha256}
    letter = Parcel(kind="epoch", lease=lease, values=values, blobs=(sha256,)).to_text()
    script, fifo = tmp_path / "dies.py", tmp_path / "fifo"
    script.write_text(DIES)
    subprocess.run(["mkfifo", str(fifo)], check=True)
    later = Delivery(replace(context, worker_id="host-2"))
    with subprocess.Popen(
        [sys.executable, str(script), str(folder), str(fifo)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(letter.encode() + b"\n")
        child.stdin.close()
        assert child.stdout.readline() == b"written\n"
        with later.delivering():
            assert epochs(context) == [], "what a living worker has to deliver is its own"
        child.kill()
        child.wait()
    later = Delivery(replace(context, worker_id="host-3"))
    with later.delivering():
        assert epochs(context) == [1], "before anything else is done"
    assert context.store.blobs.open(sha256).read_bytes() == b"state of a killed worker"
    assert not folder.exists()


def test_what_another_version_left_is_dropped_and_ends_no_worker(
    context: WorkerContext, lease: Lease
) -> None:
    left = Spool.take(spool_folder(context.store.home, context.study) / "gone")
    assert left is not None
    values = {"report": asdict(report(1)), "checkpoint": "c" * 64}
    left.write(Parcel(kind="epoch", lease=lease, values={"report": {"shape": "unknown"}}).to_text())
    left.write(Parcel(kind="of tomorrow", lease=lease).to_text())
    left.write(Parcel(kind="epoch", lease=lease, values=values).to_text())
    left.close()
    with Delivery(context).delivering():
        assert epochs(context) == [1]
    assert not left.folder.exists()


def test_what_is_refused_is_dropped_and_what_follows_is_delivered(
    context: WorkerContext, lease: Lease
) -> None:
    other = leased(context, number=1)
    delivery = Delivery(context)
    with delivery.delivering():
        send_result(delivery, replace(lease, attempt=lease.attempt + 1))
        send_epoch(delivery, other, 1)
        delivery.settle()
        assert delivery.refused(replace(lease, attempt=lease.attempt + 1))
        assert not delivery.refused(lease)
        assert not delivery.refused(other)
    assert state(context) == "running"
    assert [row.epoch for row in reads.epochs(context.store.engine, context.study.id, 1)] == [1]


def test_a_full_disk_is_said_and_does_without(
    context: WorkerContext, lease: Lease, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = []

    def full(self: Spool, data: bytes, target: Path) -> None:
        refused.append(target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "_publish", full)
    delivery = Delivery(context)
    with delivery.delivering():
        send_epoch(delivery, lease, 1)
        send_result(delivery, lease)
        delivery.settle()
    assert len(refused) == 5  # three blobs, two letters
    assert (epochs(context), state(context)) == ([1], "complete")
    assert "No space left on device" in capsys.readouterr().out


def test_a_folder_that_cannot_be_is_done_without(context: WorkerContext, lease: Lease) -> None:
    context.store.home.mkdir(exist_ok=True)
    (context.store.home / "spool").write_text("not a folder")
    delivery = Delivery(context)
    with delivery.delivering():
        send_result(delivery, lease)
        delivery.settle()
    assert state(context) == "complete"


def test_an_outage_that_is_too_long_ends_the_worker_and_loses_nothing(
    context: WorkerContext, lease: Lease, away: threading.Event
) -> None:
    impatient = replace(context, options=replace(context.options, outage_s=0.2))
    delivery = Delivery(impatient)
    with pytest.raises(StorageError, match="not available"), delivery.delivering():
        send_epoch(delivery, lease, 1)
        wait_for(lambda: delivery.broken)
        delivery.settle()
    assert epochs(context) == []
    away.set()
    with Delivery(replace(context, worker_id="host-2")).delivering():
        assert epochs(context) == [1]


def test_a_wrong_password_is_not_waited_for(
    context: WorkerContext, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Parcel, engine: Any) -> None:
        raise StorageError("Postgres refused: password authentication failed")

    monkeypatch.setattr(Parcel, "record", refuse)
    delivery = Delivery(context)
    with pytest.raises(StorageError, match="password"), delivery.delivering():
        send_epoch(delivery, lease, 1)
        delivery.settle()


def test_a_worker_that_is_to_stop_does_not_wait_for_postgres(
    context: WorkerContext, lease: Lease, away: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "FAREWELL_S", 0.1)
    delivery = Delivery(replace(context, should_stop=lambda: True))
    with delivery.delivering():
        send_epoch(delivery, lease, 1)
        delivery.settle()
        assert not delivery.flush(0)
    away.set()
    with Delivery(replace(context, worker_id="host-2")).delivering():
        assert epochs(context) == [1]


def test_parcels_survive_being_a_file(lease: Lease) -> None:
    parcel = Parcel(kind="complete", lease=lease, values={"a": [1, None]}, blobs=("b",), removes=("c",))
    assert Parcel.from_text(parcel.to_text()) == replace(parcel, lease=replace(lease, latency=None))
    assert {"epoch", "checkpoint", "complete", "failed", "rejected", "pause", "give_back"} <= set(RECORD)


def test_what_cannot_be_read_is_dropped(context: WorkerContext, lease: Lease) -> None:
    folder = spool_folder(context.store.home, context.study) / "host-1"
    spool = Spool.take(folder)
    assert spool is not None
    spool.write('{"kind": "epoch"')
    spool.close()
    assert folder.exists()
    with Delivery(replace(context, worker_id="host-2")).delivering():
        pass
    assert not folder.exists()


def test_a_spool_is_one_workers_and_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "spool"
    spool = Spool.take(folder)
    assert spool is not None
    assert Spool.take(folder) is None
    sha256 = spool.put(b"bytes")
    assert spool.put(b"bytes") == sha256
    spool.forget(None, (sha256,))
    assert spool.path(sha256).exists(), "somebody else still speaks of it"
    spool.forget(None, (sha256,))
    assert not spool.path(sha256).exists()
    monkeypatch.setattr(spool_module, "MOST_BYTES", 8)
    full = spool.put(b"8 bytes.")
    with pytest.raises(OSError, match="waits to be delivered"):
        spool.put(b"more")
    spool.forget(None, (full,))
    spool.forget(None, (spool.put(b"more"),))
    spool.close()
    assert not folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
