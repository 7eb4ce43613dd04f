"""Predict with an exported student, its files checked; neither torch nor transformers is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.core.errors import KdsearchError, NotFoundError, UsageError
from kdsearch.export import standalone
from kdsearch.export.manifest import TOKENIZER, Manifest, check_file, read_manifest
from kdsearch.export.standalone import (
    RUNTIMES,
    FloatArray,
    Prediction,
    Student,
    open_tokenizer,
    pad,
    run_session,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "FloatArray",
    "Prediction",
    "Predictor",
    "open_session",
    "open_tokenizer",
    "pad",
    "run_session",
]


def open_session(path: Path, *, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU with a stated number of threads."""
    try:
        return standalone.open_session(path, threads=threads)
    except ImportError as error:
        raise KdsearchError("onnxruntime is not installed", hint='pip install "kdsearch[onnx]"') from error


class Predictor(Student):
    """An exported folder, opened: the files it uses have been checked against the manifest."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, session: Any, batch_size: int) -> None:
        super().__init__(manifest.labels, manifest.pad_id, tokenizer, session, batch_size)
        self.manifest = manifest

    @classmethod
    def open(  # type: ignore[override]
        cls, folder: Path, *, runtime: str = "", threads: int = 1
    ) -> Predictor:
        """NotFoundError where there is no export, VerificationError where a file was altered."""
        manifest = read_manifest(folder)
        chosen = RUNTIMES[_choose(folder, manifest, runtime)]
        tokenizer = open_tokenizer(check_file(folder, manifest, TOKENIZER), manifest.max_length)
        session = open_session(check_file(folder, manifest, chosen.file), threads=threads)
        return cls(manifest, tokenizer, session, chosen.batch_size)


def _choose(folder: Path, manifest: Manifest, runtime: str) -> str:
    """The runtime asked for, or the first one that was exported."""
    there = [name for name, each in RUNTIMES.items() if each.file in manifest.files]
    if runtime and runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime {runtime!r}", hint="one of " + ", ".join(RUNTIMES))
    if not there or (runtime and runtime not in there):
        raise NotFoundError(
            f"{folder} has no graph for {runtime or 'onnxruntime'}",
            hint=f"it has {', '.join(there) or 'none'}; kdsearch export ... --format {runtime or 'onnx'}",
        )
    return runtime or there[0]
