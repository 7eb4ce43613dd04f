"""The metadata of a model card: what the Hub reads of it, `model-index` with the measured results."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kdsearch.export.formats import HF, INT8, ONNX
from kdsearch.export.manifest import Evaluation, Manifest

TAGS = ("knowledge-distillation", "kdsearch")
METRIC_TYPES = {"f1": "f1", "macro_f1": "f1", "accuracy": "accuracy", "recall@precision": "recall"}
"""Kind of objective -> the Hub's name of the metric."""


def front_matter(manifest: Manifest) -> str:
    """YAML; licence, language and data sets are questions further down, not guesses here."""
    onnx = {ONNX, INT8} & set(manifest.formats)
    library = "transformers" if HF in manifest.formats else ("onnx" if onnx else "pytorch")
    base, tags = manifest.lineage.teacher_hub_id, (*TAGS, *(["onnx"] if onnx else []), manifest.student)
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: text-classification",
        *([f"base_model: {_text(base)}"] if base else []),
        "tags:",
        *(f"- {tag}" for tag in tags),
        f"metrics:\n- {_text(manifest.metrics.objective)}",
        "model-index:",
        f"- name: {_text(f'{manifest.study}, trial {manifest.trial}')}",
        "  results:",
        *_result(manifest, "validation", manifest.metrics.validation),
        *([] if manifest.metrics.test is None else _result(manifest, "test", manifest.metrics.test)),
        "---",
    ]
    return "\n".join(lines)


def _text(text: str) -> str:
    """As YAML: a JSON string is one."""
    return json.dumps(text, ensure_ascii=False)


def _result(manifest: Manifest, pool: str, found: Evaluation) -> Iterator[str]:
    objective, scores, (low, high) = manifest.metrics.objective, found.scores, found.interval
    kind = METRIC_TYPES[objective.partition("=")[0].partition(":")[0]]
    named = f"{objective}, 95 % interval {low:.4f} to {high:.4f}"
    yield "  - task: {type: text-classification}"
    yield "    dataset:"
    yield f"      name: {_text(f'{pool} pool of study {manifest.study}')}"
    yield "      type: other"
    yield f"      split: {pool}"
    yield f"      args: {{fingerprint: {_text(manifest.lineage.data_fingerprint)}, rows: {found.num_rows}}}"
    yield "    metrics:"
    for metric, value, name in (
        (kind, scores.quality, named),
        ("accuracy", scores.accuracy, "accuracy"),
        ("f1", scores.macro_f1, "macro F1"),
    ):
        yield f"    - {{type: {metric}, value: {value:.6f}, name: {_text(name)}}}"
