"""Classify texts with the student in this folder; needs numpy, tokenizers and onnxruntime, nothing else.

As a command:

    python predict.py "a text" "another text"
    python predict.py --file texts.csv --text message      # csv, tsv, jsonl, or txt with a text a line
    python predict.py < texts.txt                          # a text a line
    python predict.py --check                              # answers example_inputs.json again

As a module:

    from predict import Student
    Student.open().predict(["a text"])                     # [Prediction(label=..., probabilities=...)]

Letters: N texts, B of a batch, T tokens, C classes.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

MANIFEST, TOKENIZER, EXAMPLES = "kdsearch.json", "tokenizer.json", "example_inputs.json"
ROWS_AT_ONCE = 1024
NOT_VERIFIED = 7


@dataclass(frozen=True)
class Runtime:
    """A graph that answers."""

    file: str
    precision: str
    batch_size: int
    """int8 texts go one at a time: those of a batch share the scale of what is quantised on the way."""


RUNTIMES: dict[str, Runtime] = {
    "onnx": Runtime("onnx/model.onnx", "float32", 32),
    "onnx-int8": Runtime("onnx/model_int8.onnx", "int8", 1),
}


@dataclass(frozen=True)
class Prediction:
    """One text's label, and what it is the best of, in the order of the student's labels."""

    label: str
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]

    @property
    def probability(self) -> float:
        """Of the label."""
        return max(self.probabilities)


def open_session(path: Path, *, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU with a stated number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, ids_BT: IntArray, mask_BT: IntArray) -> FloatArray:
    """Logits (B, C) of one batch."""
    logits_BC: FloatArray = session.run(["logits"], {"input_ids": ids_BT, "attention_mask": mask_BT})[0]
    return logits_BC


def open_tokenizer(path: Path, max_length: int) -> Tokenizer:
    """The exported tokenizer, cutting texts where the training cut them and padding nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[IntArray, IntArray]:
    """Token ids and mask (B, T), padded on the right to the longest row; at least one column."""
    width = max(1, *map(len, rows))
    ids_BT = np.full((len(rows), width), pad_id, np.int64)
    mask_BT = np.zeros((len(rows), width), np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
        mask_BT[i, : len(row)] = 1
    return ids_BT, mask_BT


class Student:
    """An exported student, ready to answer."""

    def __init__(
        self, labels: Sequence[str], pad_id: int, tokenizer: Tokenizer, session: Any, batch_size: int = 32
    ) -> None:
        self.labels = tuple(labels)
        self.pad_id = pad_id
        self.tokenizer = tokenizer
        self.session = session
        self.batch_size = batch_size

    @classmethod
    def open(
        cls, folder: str | Path = Path(__file__).parent, *, runtime: str = "", threads: int = 1
    ) -> Student:
        """The student in a folder; without a runtime, the first one that the folder has."""
        folder = Path(folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        chosen = RUNTIMES[runtime or runtimes(folder)[0]]
        return cls(
            manifest["labels"],
            manifest["pad_id"],
            open_tokenizer(folder / TOKENIZER, manifest["max_length"]),
            open_session(folder / chosen.file, threads=threads),
            chosen.batch_size,
        )

    def logits(self, texts: Sequence[str], *, batch_size: int | None = None) -> FloatArray:
        """(N, C), in the order of the texts; batches are made of texts of similar length."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order, size = sorted(range(len(rows)), key=lambda i: len(rows[i])), batch_size or self.batch_size
        logits_NC = np.empty((len(rows), len(self.labels)), np.float32)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            logits_NC[batch] = run_session(self.session, *pad([rows[i] for i in batch], self.pad_id))
        return logits_NC

    def predict(self, texts: Sequence[str], *, batch_size: int | None = None) -> list[Prediction]:
        """A label for every text."""
        logits_NC = self.logits(texts, batch_size=batch_size).astype(np.float64)
        exp_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
        return [
            Prediction(self.labels[int(row.argmax())], tuple(map(float, row)), tuple(map(float, logits)))
            for row, logits in zip(exp_NC / exp_NC.sum(axis=1, keepdims=True), logits_NC, strict=True)
        ]


def runtimes(folder: Path) -> list[str]:
    """The runtimes that a folder has a graph for."""
    found = [name for name, runtime in RUNTIMES.items() if (folder / runtime.file).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} has no ONNX graph")
    return found


# ---------------------------------------------------------------- examples


@dataclass(frozen=True)
class Checked:
    """Examples answered again."""

    num_examples: int
    largest_diff: float
    wrong: tuple[str, ...]
    """What is not as expected, one sentence an example."""


def check_examples(logits_NC: FloatArray, examples: Mapping[str, Any], precision: str) -> Checked:
    """Compare logits of the examples' texts with those that were written beside them."""
    tolerance, labels = examples["tolerance"][precision], examples["labels"]
    largest, wrong = 0.0, []
    for found, example in zip(logits_NC, examples["examples"], strict=True):
        expected = example["expected"][precision]
        wanted = np.asarray(expected["logits"], np.float64)
        difference = float(np.abs(found - wanted).max())
        largest = max(largest, difference)
        label = labels[int(found.argmax())]
        second, first = np.sort(wanted)[-2:]
        same = label == expected["label"] or first - second <= 2 * tolerance
        if not (same and difference <= tolerance):
            wrong.append(
                f"{example['what']}: {label}, {expected['label']} expected; logits off by {difference:.3g}"
            )
    return Checked(len(logits_NC), largest, tuple(wrong))


def read_examples(folder: Path) -> dict[str, Any]:
    """example_inputs.json."""
    found: dict[str, Any] = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
    return found


def check(folder: Path, threads: int) -> int:
    """Answer the examples with every graph of the folder and say how it went; the exit code."""
    examples = read_examples(folder)
    texts = [example["text"] for example in examples["examples"]]
    code = 0
    for name in runtimes(folder):
        student = Student.open(folder, runtime=name, threads=threads)
        found = check_examples(student.logits(texts), examples, RUNTIMES[name].precision)
        code = NOT_VERIFIED if found.wrong else code
        verdict = "not as expected" if found.wrong else "as expected"
        _say(f"{name}: {found.num_examples} examples {verdict}, logits within {found.largest_diff:.1e}")
        for sentence in found.wrong:
            _say(f"  {sentence}")
    return code


# ---------------------------------------------------------------- command line


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _texts(arguments: argparse.Namespace) -> Iterable[str]:
    if arguments.texts:
        return list(arguments.texts)
    if arguments.file is None:
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        return (line.rstrip("\r\n") for line in sys.stdin)
    return _file_texts(arguments.file, arguments.text)


def _file_texts(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        kind = path.suffix.lower()
        if kind == ".jsonl":
            yield from (str(json.loads(line)[column]) for line in file if line.strip())
        elif kind in (".csv", ".tsv"):
            rows = csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ",")
            yield from (row[column] for row in rows)
        else:
            yield from (line.rstrip("\r\n") for line in file)


def _answer(student: Student, texts: Iterable[str], *, as_json: bool) -> None:
    remaining = iter(texts)
    while chunk := list(islice(remaining, ROWS_AT_ONCE)):
        for text, found in zip(chunk, student.predict(chunk), strict=True):
            if as_json:
                answer = {
                    "text": text,
                    "label": found.label,
                    "probabilities": dict(zip(student.labels, found.probabilities, strict=True)),
                    "logits": dict(zip(student.labels, found.logits, strict=True)),
                }
                _say(json.dumps(answer, ensure_ascii=False))
            else:
                _say(f"{found.label}\t{found.probability:.4f}\t{' '.join(text.split())}")


def main(argv: Sequence[str] | None = None, folder: Path = Path(__file__).parent) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Classify texts with the student in this folder.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="without any, standard input line by line")
    parser.add_argument("--file", type=Path, help="csv, tsv, jsonl, or txt with a text a line; UTF-8")
    parser.add_argument("--text", default="text", metavar="NAME", help="column of the text")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="", help="which graph answers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with all probabilities")
    parser.add_argument("--check", action="store_true", help="answer example_inputs.json again and compare")
    arguments = parser.parse_args(argv)
    if arguments.check:
        return check(folder, arguments.threads)
    student = Student.open(folder, runtime=arguments.runtime, threads=arguments.threads)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    _answer(student, _texts(arguments), as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
