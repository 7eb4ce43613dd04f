"""kdsearch.json: what an exported student is, how good and fast it was measured, and every file's hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import NotFoundError, VerificationError
from kdsearch.core.records import Latency, Scores
from kdsearch.core.space import Scalar

FORMAT = 2
READABLE = (1, 2)
"""Format 1 had two formats, hf and onnx, and no examples."""
MANIFEST = "kdsearch.json"
MODEL = "model.safetensors"
ONNX = "onnx/model.onnx"
ONNX_INT8 = "onnx/model_int8.onnx"
TOKENIZER = "tokenizer.json"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores on one pool; the interval is that of the quality, 95 %, by bootstrap over rows."""

    scores: Scores
    interval: tuple[float, float]
    num_rows: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """From what `to_json` gave."""
        low, high = data["interval"]
        return cls(scores=Scores(**data["scores"]), interval=(low, high), num_rows=data["num_rows"])


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Quality: on the pool the search looked at, and on the one it did not."""

    objective: str
    validation: Evaluation
    test: Evaluation | None
    """None where the study has no test pool."""
    test_reads: int
    """How many trials of the study have been scored on its test pool until now, this one included."""
    teacher: Scores | None
    """The teacher's, on the validation pool."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Latency under the study's protocol; student and teacher on the same hardware profile."""

    objective: str
    student: Latency | None
    teacher: Latency | None

    @property
    def speedup(self) -> float | None:
        """How many times faster than the teacher; None unless both were measured on one profile."""
        if self.student is None or self.teacher is None or self.student.profile != self.teacher.profile:
            return None
        return self.teacher.at(self.objective) / self.student.at(self.objective)


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """The int8 graph: what it is worth and how fast it is, both measured when it was exported.

    Its texts are run one at a time; float32 is the exported graph, measured beside it.
    """

    validation: Evaluation
    difference: tuple[float, float, float]
    """Quality minus that of float32 on the same rows, and its 95 % interval (paired bootstrap)."""
    same_label: float
    """Share of validation rows on which it gives the label of float32."""
    largest_diff: float
    """Of logits, against float32."""
    batch_diff: float
    """Of logits: rows alone against the same rows in padded batches."""
    batch_changed: float
    """Share of rows whose label changes in such a batch."""
    operators: Mapping[str, int]
    """How many of each quantised kind the graph has."""
    latency: Latency
    float_latency: Latency
    """Of the float32 graph, on the same machine right before."""

    @property
    def ratio(self) -> float:
        """p50 of int8 over that of float32: below 1 is faster."""
        return self.latency.p50_ms / self.float_latency.p50_ms

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quantised:
        """From a JSON object of its fields."""
        value, low, high = data["difference"]
        decoded = {
            "validation": Evaluation.from_json(data["validation"]),
            "difference": (value, low, high),
            "latency": Latency.from_json(data["latency"]),
            "float_latency": Latency.from_json(data["float_latency"]),
        }
        return cls(**{**data, **decoded})


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where the weights come from, by content."""

    artifact: str
    """SHA-256 of the trained student in the artifact store."""
    data_fingerprint: str
    teacher: str
    """As the study file names it."""
    teacher_fingerprint: str
    teacher_hub_id: str | None = None
    """Where the study names its teacher by its place on the Hugging Face Hub."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was compared before the export was called good; largest absolute differences of logits."""

    tolerance: float
    stored_diff: float
    """The exported weights on the validation pool against the logits stored when it was trained."""
    onnx_diff: float | None
    """ONNX against the torch student, over every case and validation row tried; None without ONNX."""
    padding_diff: float | None
    """ONNX: rows alone against the same rows in padded batches."""
    num_cases: int
    """Shapes (batch size, length, padding) tried."""
    num_rows: int
    """Validation rows tried through ONNX."""
    num_texts: int
    """Validation texts whose token ids by the exported tokenizer equal those of the training."""
    quality_diff: float
    """Quality of the exported weights against the recorded one."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One exported student."""

    study: str
    study_sha256: str
    trial: int
    student: str
    scheme: str
    params: Mapping[str, Scalar]
    labels: tuple[str, ...]
    """In the order of the logits."""
    max_length: int
    """Tokens per text, special tokens included; longer texts are cut."""
    pad_id: int
    metrics: Metrics
    latency: Timing
    lineage: Lineage
    verification: Verification
    versions: Mapping[str, str]
    created_at: str
    files: Mapping[str, str]
    """Path inside the folder -> SHA-256, of every file but this one."""
    formats: tuple[str, ...] = ("hf", "onnx")
    self_contained: bool = False
    """Whether the folder holds the code of its own transformers model."""
    quantised: Quantised | None = None
    """Where the int8 graph is among the formats."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        data = {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}
        data["latency"]["speedup"] = self.latency.speedup
        data["sha256"] = sha256_of(data)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """From what `to_json` gave, also after a trip through JSON text."""
        metrics, latency = data["metrics"], data["latency"]
        fields = {key: value for key, value in data.items() if key not in ("format", "sha256")}
        quantised = data.get("quantised")
        decoded: dict[str, Any] = {
            "params": {k: tuple(v) if isinstance(v, list) else v for k, v in data["params"].items()},
            "labels": tuple(data["labels"]),
            "metrics": Metrics(
                **{
                    **metrics,
                    "validation": Evaluation.from_json(metrics["validation"]),
                    "test": metrics["test"] and Evaluation.from_json(metrics["test"]),
                    "teacher": metrics["teacher"] and Scores(**metrics["teacher"]),
                }
            ),
            "latency": Timing(
                objective=latency["objective"],
                student=latency["student"] and Latency.from_json(latency["student"]),
                teacher=latency["teacher"] and Latency.from_json(latency["teacher"]),
            ),
            "lineage": Lineage(**data["lineage"]),
            "verification": Verification(**data["verification"]),
            "formats": tuple(data.get("formats", ("hf", "onnx"))),
            "quantised": None if quantised is None else Quantised.from_json(quantised),
        }
        return cls(**{**fields, **decoded})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write kdsearch.json."""
    (folder / MANIFEST).write_text(_rendered(manifest.to_json()), encoding="utf-8")


def _rendered(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_manifest(folder: Path) -> Manifest:
    """kdsearch.json, if it is byte for byte what was written: its own hash stands in it."""
    manifest, found = read_manifest(folder), (folder / MANIFEST).read_bytes()
    data = json.loads(found)
    stated = data.pop("sha256", None)
    if data["format"] == 1:
        return manifest
    if stated != sha256_of(data) or found != _rendered({**data, "sha256": stated}).encode():
        raise VerificationError(
            f"{folder / MANIFEST} is not what was exported", hint="export the trial again"
        )
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read kdsearch.json; NotFoundError where there is none, VerificationError where it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFoundError(
            f"{folder} is not an exported student: it has no {MANIFEST}",
            hint=f"make one with `kdsearch export STUDY --to {folder}`",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"]
        if found in READABLE:
            return Manifest.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VerificationError(f"{path} is damaged: {error}", hint="export the trial again") from error
    raise VerificationError(
        f"{path} has format {found!r}, this kdsearch reads formats {' and '.join(map(str, READABLE))}",
        hint="use the kdsearch version that exported it, or export the trial again",
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by its path inside.

    What git and the Hub keep beside the files of a repository is not looked at.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    others = (MANIFEST, ".gitattributes")
    return {
        name: hash_file(path)
        for name, path in names.items()
        if name not in others and not name.startswith((".git/", ".cache/huggingface/"))
    }


def check_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """The path of one file whose bytes are those that were exported, or VerificationError."""
    path = folder / name
    if not path.is_file() or hash_file(path) != manifest.files.get(name):
        raise VerificationError(
            f"{path} is {'not what was exported' if path.is_file() else 'missing'}",
            hint=f"export trial {manifest.trial} of study {manifest.study!r} again",
        )
    return path
