"""Speed of a study's teacher and of one of its students, timed in turns on a machine that does nothing else.

    KDSEARCH_HOME=... .venv/bin/python -m benchmarks.speed STUDY TRIAL [--rounds 3]

On the study's validation texts. A study's stored figures are of the hour they were taken in; this compares
both in one run. Of each, the fastest round counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdsearch.core.blobs import get_tree
from kdsearch.core.records import Latency
from kdsearch.core.spec import LatencySpec
from kdsearch.data.dataset import load_saved
from kdsearch.data.inputs import Inputs
from kdsearch.data.prepared import Prepared
from kdsearch.measure.hostlock import HostLock, lock_folder
from kdsearch.measure.latency import measure_latency
from kdsearch.store import reads
from kdsearch.store.connect import open_store
from kdsearch.store.statefolder import resolve_home
from kdsearch.store.studies import find_study
from kdsearch.students.building import load_student
from kdsearch.teachers import source
from kdsearch.worker.measuring import NUM_TEXTS, encoder


def best(figures: list[Latency]) -> Latency:
    """The round least disturbed."""
    return min(figures, key=lambda figure: figure.mean_ms)


def line(name: str, figure: Latency) -> str:
    """One model."""
    return (
        f"{name}: {1000 / figure.mean_ms:.1f} samples/s, p90 {figure.p90_ms:.2f} ms, {figure.size_mb:.1f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study")
    parser.add_argument("trial", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = resolve_home(os.environ)
    with (
        open_store(os.environ.get("KDSEARCH_STORAGE"), None, home=home) as store,
        tempfile.TemporaryDirectory() as name,
    ):
        folder, study = Path(name), reads.study(store.engine, options.study)
        blobs = store.of_study(study.artifacts_url).blobs
        trial = reads.trial(store.engine, study.id, options.trial)
        prepared = Prepared.load(blobs, str(study.prepared))
        record = find_study(store.engine, study.name)
        dataset = load_saved(blobs, Inputs.load(blobs, record.dataset_sha256).dataset)
        texts = dataset.pools["validation"].texts[:NUM_TEXTS]
        tokenizer = source.load_tokenizer(get_tree(blobs, prepared.tokenizer, folder / "tokenizer"))
        teacher_tree = get_tree(blobs, str(prepared.teacher), folder / "teacher")
        models: dict[str, nn.Module] = {
            "teacher": source.load_classifier(teacher_tree, prepared.labels),
            "student": load_student(get_tree(blobs, str(trial.artifact), folder / "student")).student,
        }
        lock = HostLock(lock_folder(os.environ))
        encode = encoder(tokenizer, prepared.max_length)
        found: dict[str, list[Latency]] = {name: [] for name in models}
        for _ in range(options.rounds):
            for name, module in models.items():
                figure = measure_latency(module.eval(), texts, encode, LatencySpec(), lock, seed=0)
                found[name].append(figure)
    for name, figures in found.items():
        print(line(name, best(figures)))
    ratios = [t.mean_ms / s.mean_ms for t, s in zip(found["teacher"], found["student"], strict=True)]
    print(f"student faster: {np.median(ratios):.1f}× (rounds {min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
