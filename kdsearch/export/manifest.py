"""kdsearch.json: what an exported student is, how good and fast it was measured, and every file's hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdsearch.core.errors import NotFoundError, VerificationError
from kdsearch.core.records import Latency, Scores
from kdsearch.core.space import Scalar

FORMAT = 1
MANIFEST = "kdsearch.json"
MODEL = "model.safetensors"
ONNX = "onnx/model.onnx"
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
class Lineage:
    """Where the weights come from, by content."""

    artifact: str
    """SHA-256 of the trained student in the artifact store."""
    data_fingerprint: str
    teacher: str
    """As the study file names it."""
    teacher_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was compared before the export was called good; largest absolute differences of logits."""

    tolerance: float
    stored_diff: float
    """The exported weights on the validation pool against the logits stored when it was trained."""
    onnx_diff: float
    """ONNX against the torch student, over every case and validation row tried."""
    padding_diff: float
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

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        data = {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}
        data["latency"]["speedup"] = self.latency.speedup
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """From what `to_json` gave, also after a trip through JSON text."""
        metrics, latency = data["metrics"], data["latency"]
        fields = {key: value for key, value in data.items() if key != "format"}
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
        }
        return cls(**{**fields, **decoded})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write kdsearch.json."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


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
        if found == FORMAT:
            return Manifest.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VerificationError(f"{path} is damaged: {error}", hint="export the trial again") from error
    raise VerificationError(
        f"{path} has format {found!r}, this kdsearch reads format {FORMAT}",
        hint="use the kdsearch version that exported it, or export the trial again",
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: hash_file(path) for name, path in names.items() if name != MANIFEST}


def check_file(folder: Path, manifest: Manifest, name: str) -> Path:
    """The path of one file whose bytes are those that were exported, or VerificationError."""
    path = folder / name
    if not path.is_file() or hash_file(path) != manifest.files.get(name):
        raise VerificationError(
            f"{path} is {'not what was exported' if path.is_file() else 'missing'}",
            hint=f"export trial {manifest.trial} of study {manifest.study!r} again",
        )
    return path
