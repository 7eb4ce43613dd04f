"""A classical ensemble's logits for every text of a study, in the form that `teacher.logits` reads.

    .venv/bin/python -m benchmarks.classical studies/tnews.yaml --to FOLDER

Writes FOLDER/naive_bayes.npz (naive Bayes on characters alone) and FOLDER/ensemble.npz. The ensemble is a
logistic regression over the log-probabilities of naive Bayes and logistic regressions on characters and
words. What it says of a training text comes from models that did not see this text (five folds): a teacher
that has learned its labels by heart teaches labels, not what it knows. Files that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from kdsearch.core.studyfile import read_study
from kdsearch.data.dataset import Dataset, load_dataset
from kdsearch.data.tokens import text_keys

FloatArray = npt.NDArray[np.float32]
Texts = tuple[str, ...]
FOLDS = 5
SEED = 17


def cut(text: str) -> list[str]:
    """Chinese words."""
    import rjieba

    return list(rjieba.cut(text))


def members(language: str) -> dict[str, Callable[[], Pipeline]]:
    """What the ensemble is made of, by name; the first one is the baseline."""
    words = {"tokenizer": cut, "token_pattern": None} if language == "zh" else {}

    def characters(longest: int) -> CountVectorizer:
        return CountVectorizer(analyzer="char", ngram_range=(1, longest), binary=True)

    def weighed(**how: Any) -> TfidfVectorizer:
        return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, min_df=2, **how)

    def regression() -> LogisticRegression:
        return LogisticRegression(max_iter=60, tol=1e-3)

    return {
        "naive_bayes": lambda: make_pipeline(characters(2), MultinomialNB(alpha=0.1)),
        "naive_bayes_long": lambda: make_pipeline(characters(3), MultinomialNB(alpha=0.1)),
        "naive_bayes_words": lambda: make_pipeline(
            CountVectorizer(binary=True, **words), MultinomialNB(alpha=0.2)
        ),
        "regression": lambda: make_pipeline(weighed(analyzer="char", ngram_range=(1, 2)), regression()),
        "regression_words": lambda: make_pipeline(weighed(**words), regression()),
    }


def log_probabilities(model: Pipeline, texts: Texts) -> FloatArray:
    """(N, C), never minus infinity."""
    found: FloatArray = model.predict_log_proba(texts).astype(np.float32)
    return np.maximum(found, np.float32(-30.0))


def held_out(make: Callable[[], Pipeline], texts: Texts, labels_N: npt.NDArray[np.int64]) -> FloatArray:
    """What models say of texts that they were not trained on."""
    found_NC = np.zeros((len(texts), int(labels_N.max()) + 1), np.float32)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    for seen, unseen in folds.split(texts, labels_N):
        model = make().fit([texts[i] for i in seen], labels_N[seen])
        found_NC[unseen] = log_probabilities(model, tuple(texts[i] for i in unseen))
    return found_NC


def says(
    name: str, make: Callable[[], Pipeline], dataset: Dataset
) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Log-probabilities by pool (those of train held out), and what is known of the member."""
    train = dataset.pools["train"]
    began = time.perf_counter()
    found = {"train": held_out(make, train.texts, train.labels_N)}
    model = make().fit(train.texts, train.labels_N)
    facts = {"train_seconds": time.perf_counter() - began}
    for pool in dataset.pools:
        if pool != "train":
            began = time.perf_counter()
            found[pool] = log_probabilities(model, dataset.pools[pool].texts)
            facts[f"{pool}_seconds"] = time.perf_counter() - began
    validation = dataset.pools["validation"]
    facts["validation_accuracy"] = accuracy(found["validation"], validation.labels_N)
    print(
        f"{name}: validation {facts['validation_accuracy']:.4f}, {facts['train_seconds']:.0f} s", flush=True
    )
    return found, facts


def accuracy(logits_NC: FloatArray, labels_N: npt.NDArray[np.int64]) -> float:
    """Share of right rows."""
    return float((logits_NC.argmax(1) == labels_N).mean())


def stacked(said: Mapping[str, Mapping[str, FloatArray]], dataset: Dataset) -> dict[str, FloatArray]:
    """The ensemble's logits by pool: its weights are learned from what members say of texts unseen."""
    pools = {pool: np.concatenate([said[name][pool] for name in said], axis=1) for pool in dataset.pools}
    model = LogisticRegression(C=0.1, max_iter=200)
    model.fit(pools["train"], dataset.pools["train"].labels_N)
    return {pool: model.predict_log_proba(found).astype(np.float32) for pool, found in pools.items()}


def write(path: Path, logits: Mapping[str, FloatArray], dataset: Dataset) -> None:
    """One row for each text; of equal texts the first counts, and those of train stand first."""
    keys = np.concatenate([text_keys(dataset.pools[pool].texts) for pool in logits])
    _, first = np.unique(keys, axis=0, return_index=True)
    rows = np.sort(first)
    stored = np.concatenate(list(logits.values())).astype(np.float32)[rows]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, keys=keys[rows], logits=stored, labels=np.array(dataset.labels))
    partial.replace(path)


def dataset_of(study: Path) -> tuple[Dataset, str]:
    """The pools of a study file, and the language of their texts."""
    file = read_study(study, env=os.environ)
    return load_dataset(file.spec.data, base=file.base, teacher_labels=None), file.spec.data.language


def make_logits(study: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Both files and what is known of the models; nothing is made again."""
    report = folder / "classical.json"
    if report.exists():
        known: dict[str, dict[str, float]] = json.loads(report.read_text())
        return known
    folder.mkdir(parents=True, exist_ok=True)
    dataset, language = dataset_of(study)
    warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early does no harm
    said: dict[str, dict[str, FloatArray]] = {}
    facts: dict[str, dict[str, float]] = {}
    for name, make in members(language).items():
        said[name], facts[name] = says(name, make, dataset)
    ensemble = stacked(said, dataset)
    validation = dataset.pools["validation"]
    facts["ensemble"] = {
        "validation_accuracy": accuracy(ensemble["validation"], validation.labels_N),
        **{
            f"{pool}_seconds": sum(facts[m].get(f"{pool}_seconds", 0.0) for m in said)
            for pool in ("train", "test")
        },
    }
    print(f"ensemble: validation {facts['ensemble']['validation_accuracy']:.4f}", flush=True)
    write(folder / "naive_bayes.npz", said["naive_bayes"], dataset)
    write(folder / "ensemble.npz", ensemble, dataset)
    report.write_text(json.dumps(facts, indent=1))
    return facts


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    make_logits(options.study, options.to)


if __name__ == "__main__":
    main()
