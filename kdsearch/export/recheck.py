"""An exported folder proves itself anywhere: without a database, without running any code that lies in it.

Every byte is hashed, the examples are answered again by each graph and by the weights, and a text's logits
are compared alone and among others. Letters: N texts, C classes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdsearch.core.errors import DataError, VerificationError
from kdsearch.core.records import Scores
from kdsearch.export.formats import HF, TORCH, TORCH_FOLDER
from kdsearch.export.manifest import MANIFEST, Evaluation, Manifest, check_manifest, hash_files
from kdsearch.export.predict import FloatArray, Predictor
from kdsearch.export.standalone import RUNTIMES, check_examples, read_examples
from kdsearch.export.tables import read_texts, whole
from kdsearch.measure.quality import bootstrap_interval, score

ROWS_AT_ONCE = 1024
SEED = 17
CACHES = ("__pycache__/",)


@dataclass(frozen=True)
class Check:
    """One thing that holds."""

    name: str
    detail: str


def verify_folder(folder: Path) -> Iterator[Check]:
    """Each check as it is passed; VerificationError at the first that is not."""
    manifest = check_manifest(folder)
    yield check_files(folder, manifest)
    if "example_inputs.json" not in manifest.files:
        return
    examples = read_examples(folder)
    texts = [example["text"] for example in examples["examples"]]
    logits: dict[str, FloatArray] = {}
    for runtime in _runtimes(manifest):
        predictor = Predictor.open(folder, runtime=runtime)
        logits[runtime] = predictor.logits(texts, batch_size=1)
        yield _examples(runtime, logits[runtime], examples, RUNTIMES[runtime].precision)
        yield _padding(runtime, logits[runtime], predictor.logits(texts, batch_size=len(texts)), examples)
    for name in (HF, TORCH):
        if name in manifest.formats:
            yield _weights(folder, manifest, name, examples)


def check_files(folder: Path, manifest: Manifest) -> Check:
    """Every file is there, byte for byte, and no other."""
    found = hash_files(folder)
    wrong = {
        "altered": sorted(n for n in found.keys() & manifest.files if found[n] != manifest.files[n]),
        "missing": sorted(manifest.files.keys() - found),
        "added": sorted(found.keys() - manifest.files),
    }
    if any(wrong.values()):
        what = "; ".join(f"{how}: {', '.join(names)}" for how, names in wrong.items() if names)
        compiled = any(cache in name for name in wrong["added"] for cache in CACHES)
        hint = (
            "delete __pycache__: Python makes it where predict.py is imported"
            if compiled
            else f"take the folder from where it came, or export trial {manifest.trial} of study "
            f"{manifest.study!r} again"
        )
        raise VerificationError(f"{folder} is not what was exported; {what}", hint=hint)
    return Check("files", f"{len(found)} files and {MANIFEST}, every byte as it was exported")


def _runtimes(manifest: Manifest) -> list[str]:
    return [name for name, runtime in RUNTIMES.items() if runtime.file in manifest.files]


def _examples(name: str, logits_NC: FloatArray, examples: dict[str, Any], precision: str) -> Check:
    found = check_examples(logits_NC, examples, precision)
    if found.wrong:
        raise VerificationError(
            f"{name} does not answer as it did when it was exported; {found.wrong[0]}",
            hint="other versions of onnxruntime or torch, or another processor? kdsearch.json has them",
        )
    return Check(name, f"{found.num_examples} examples as expected, logits within {found.largest_diff:.1e}")


def _padding(name: str, alone_NC: FloatArray, among_NC: FloatArray, examples: dict[str, Any]) -> Check:
    """float32 logits are the same in any batch; those of int8 are not, and what they do is said."""
    moved = float(np.abs(alone_NC - among_NC).max())
    exact = RUNTIMES[name].batch_size > 1
    if exact and not moved <= examples["tolerance"][RUNTIMES[name].precision]:
        raise VerificationError(f"{name}: padding moves logits by {moved:.3g}", hint="export the trial again")
    so = "the same" if exact else "not the same, so texts go one at a time:"
    return Check(f"{name} padding", f"alone and among longer texts {so} (logits within {moved:.1e})")


def _weights(folder: Path, manifest: Manifest, name: str, examples: dict[str, Any]) -> Check:
    """The weights of a format, in kdsearch's own student."""
    if importlib.util.find_spec("torch") is None:
        return Check(name, "not looked at: torch is not installed")
    from kdsearch.export.folder import read_student
    from kdsearch.export.predict import open_tokenizer, pad
    from kdsearch.export.verify import student_run
    from kdsearch.students.building import load_student

    readers: dict[str, Callable[[], Any]] = {
        HF: lambda: read_student(folder),
        TORCH: lambda: load_student(folder / TORCH_FOLDER).student,
    }
    run, tokenizer = (
        student_run(readers[name]()),
        open_tokenizer(folder / "tokenizer.json", manifest.max_length),
    )
    rows = [tokenizer.encode(example["text"]).ids for example in examples["examples"]]
    logits_NC = np.concatenate([run(*pad([row], manifest.pad_id)) for row in rows])
    return _examples(name, logits_NC, examples, "float32")


# ---------------------------------------------------------------- labelled files


def evaluate_file(folder: Path, path: Path, *, text: str, label: str) -> dict[str, Evaluation]:
    """How good each graph is on a labelled file; DataError where a label is not the student's."""
    return {
        runtime: _evaluate(Predictor.open(folder, runtime=runtime), path, text, label)
        for runtime in _runtimes(check_manifest(folder))
    }


def _evaluate(predictor: Predictor, path: Path, text: str, label: str) -> Evaluation:
    texts: list[str] = []
    labels: list[int] = []
    for row in whole(read_texts(path, text)):
        named = row.fields.get(label)
        if named not in predictor.labels:
            raise DataError(
                f"{path}: {label} is {named!r} in row {len(texts) + 1}, which is no label of this student",
                hint=f"its labels are {', '.join(predictor.labels)}; --label NAME names the column",
            )
        texts.append(row.text)
        labels.append(predictor.labels.index(str(named)))
    if not texts:
        raise DataError(f"{path} has no rows", hint="a file with a column of texts and one of labels")
    logits_NC, labels_N = predictor.logits(texts), np.asarray(labels, np.int64)
    objective = predictor.manifest.metrics.objective
    scores: Scores = score(logits_NC, labels_N, labels=predictor.labels, objective=objective)
    interval = bootstrap_interval(
        logits_NC, labels_N, labels=predictor.labels, objective=objective, seed=SEED
    )
    return Evaluation(scores=scores, interval=interval, num_rows=len(texts))
