"""The measuring protocol: which queries, how many, how long, and that nobody trains meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.measure import hostlock, latency
from kdsearch.measure.hostlock import HostLock
from kdsearch.measure.latency import measure_latency, percentile, query_texts
from kdsearch.measure.runtimes import RUNTIMES
from kdsearch.measure.runtimes.base import Prepared

TEXTS = ["a", "a b", "a b c", "a b c d e f g"]
SPEC = LatencySpec(warmup=3, min_queries=10, min_seconds=0)


def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    counts = [len(text.split()) for text in texts]
    mask = (np.arange(max(counts)) < np.array(counts)[:, None]).astype(np.int64)
    return mask * 7, mask


class Recording:
    """A runtime that notes its queries, and whether the host was free for training during each."""

    def __init__(self, folder: Path) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.host_was_free: list[bool] = []
        self.folder = folder

    def prepare(self, module: nn.Module, spec: LatencySpec) -> Prepared:
        return Prepared(self.run, 1.5, 42)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert ids.shape == mask.shape
        self.shapes.append(ids.shape)
        with (self.folder / "host.lock").open() as host:
            self.host_was_free.append(hostlock._take(host.fileno(), hostlock.fcntl.LOCK_SH, 0))
        return np.zeros((len(ids), 2), np.float32)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    runtime = Recording(tmp_path)
    monkeypatch.setitem(RUNTIMES, "onnx", runtime)
    return runtime


def measure(tmp_path: Path, spec: LatencySpec = SPEC, seed: int = 0) -> Latency:
    return measure_latency(nn.Identity(), TEXTS, encode, spec, HostLock(tmp_path), seed=seed)


def test_queries_have_real_lengths_in_a_fixed_order(recording: Recording, tmp_path: Path) -> None:
    figure = measure(tmp_path)
    assert figure.num_queries == 10
    assert len(recording.shapes) == SPEC.warmup + 10
    timed = recording.shapes[SPEC.warmup :]
    assert sorted(timed[:4]) == [(1, 1), (1, 2), (1, 3), (1, 7)]
    assert timed[:4] == timed[4:8]
    recording.shapes.clear()
    measure(tmp_path)
    assert recording.shapes[SPEC.warmup :] == timed


def test_measures_for_as_long_as_asked(recording: Recording, tmp_path: Path) -> None:
    figure = measure(tmp_path, LatencySpec(warmup=0, min_queries=10, min_seconds=0.5))
    assert figure.seconds >= 0.5
    assert figure.num_queries == len(recording.shapes) > 10


def test_collecting_garbage_beforehand_is_not_measuring(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency.gc, "collect", lambda: time.sleep(0.3))
    figure = measure(tmp_path, LatencySpec(warmup=0, min_queries=10, min_seconds=0.2))
    assert figure.num_queries > 10


def test_a_batch_is_filled_and_padded(recording: Recording, tmp_path: Path) -> None:
    measure(tmp_path, LatencySpec(warmup=0, min_queries=10, min_seconds=0, batch_size=6))
    assert set(recording.shapes) == {(6, 7)}


def test_figures_are_consistent(recording: Recording, tmp_path: Path) -> None:
    figure = measure(tmp_path)
    assert 0 < figure.p50_ms <= figure.p90_ms <= figure.p99_ms
    assert figure.mean_ms * figure.num_queries <= figure.seconds * 1e3
    assert (figure.size_mb, figure.num_params) == (1.5, 42)
    assert figure.tokenize_p50_ms > 0
    assert len(figure.quantiles_ms) == latency.QUANTILES
    assert list(figure.quantiles_ms) == sorted(figure.quantiles_ms)
    assert figure.quantiles_ms[0] <= figure.p50_ms * 1.001
    assert figure.quantiles_ms[-1] >= figure.p99_ms * 0.999
    assert Latency.from_json(json.loads(json.dumps(figure.to_json()))) == figure
    assert (figure.profile.runtime, figure.profile.device, figure.profile.batch_size) == ("onnx", "cpu", 1)


def test_nobody_trains_during_any_query(recording: Recording, tmp_path: Path) -> None:
    assert not measure(tmp_path).noisy
    assert not any(recording.host_was_free)


def test_a_host_that_is_never_free_gives_a_figure_marked_noisy_after_several_tries(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "LOCK_TIMEOUT_S", 0.02)
    with HostLock(tmp_path).training():
        figure = measure(tmp_path)
    assert figure.noisy
    assert all(recording.host_was_free)


def test_a_host_that_becomes_free_gives_a_clean_figure(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])

    class Busy(HostLock):
        @contextmanager
        def measuring(self, timeout_s: float) -> Iterator[bool]:
            with super().measuring(timeout_s):
                yield next(answers)

    figure = measure_latency(nn.Identity(), TEXTS, encode, SPEC, Busy(tmp_path))
    assert not figure.noisy
    assert len(recording.shapes) == SPEC.warmup + SPEC.min_queries, "only the clean try is timed"


def test_percentile_is_by_nearest_rank() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(values, share) for share in (0.05, 0.3, 0.4, 0.5, 1.0)] == [15, 20, 20, 35, 50]
    assert percentile([3.0], 0.9) == 3.0
    hundred = [float(i) for i in range(1, 101)]
    assert (percentile(hundred[::-1], 0.90), percentile(hundred, 0.99)) == (90, 99)


def test_query_texts_follow_the_seed_and_use_every_text() -> None:
    texts = [str(i) for i in range(50)]
    assert query_texts(texts, 1, 0) == query_texts(texts, 1, 0) != query_texts(texts, 1, 1)
    assert sorted(query_texts(texts, 1, 0)) == sorted([text] for text in texts)
    assert {len(query) for query in query_texts(texts, 8, 0)} == {8}
    with pytest.raises(ValueError, match="no texts"):
        query_texts([], 1, 0)


def test_profile_of_a_gpu_needs_no_gpu_to_be_named() -> None:
    from kdsearch.measure.profile import hardware_profile

    profile = hardware_profile(LatencySpec(device="cuda", runtime="torch"))
    named = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    assert profile.device_model == named


def test_measuring_can_be_interrupted_between_two_queries(recording: Recording, tmp_path: Path) -> None:
    class AskedToStopError(Exception):
        pass

    def stop_after_five() -> None:
        if len(recording.shapes) == 5:
            raise AskedToStopError

    lock = HostLock(tmp_path, interrupt=stop_after_five)
    with pytest.raises(AskedToStopError):
        measure_latency(nn.Identity(), TEXTS, encode, SPEC, lock)
    assert len(recording.shapes) == 5


@pytest.mark.parametrize("where", ["in a query", "between two"])
@pytest.mark.parametrize("stops", [1, latency.TRIES])
def test_a_measurer_that_was_stopped_measures_again(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, stops: int
) -> None:
    """As after SIGSTOP: the clock has gone on for minutes, in which others may have trained."""
    skipped_ns, struck = [0], []
    real = time.perf_counter_ns

    class Clock:
        @staticmethod
        def perf_counter_ns() -> int:
            return real() + skipped_ns[0]

    def stop(*args: object) -> np.ndarray:
        asked = len(recording.shapes) % (SPEC.warmup + SPEC.min_queries)
        if asked == SPEC.warmup + 5 and len(struck) < stops and len(recording.shapes) not in struck:
            struck.append(len(recording.shapes))
            skipped_ns[0] += 120 * 10**9
        return np.zeros((1, 2))

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        recording.shapes.append(ids.shape)
        return stop() if where == "in a query" else np.zeros((1, 2))

    monkeypatch.setattr(latency, "time", Clock)
    monkeypatch.setattr(recording, "run", run)
    interrupt = stop if where == "between two" else lambda: None
    lock = HostLock(tmp_path, interrupt=interrupt)
    figure = measure_latency(nn.Identity(), TEXTS, encode, SPEC, lock)
    assert len(struck) == stops
    assert figure.noisy == (stops == latency.TRIES)
    if stops == 1:
        assert figure.p99_ms < 60_000
        assert len(recording.shapes) == 2 * (SPEC.warmup + SPEC.min_queries)
