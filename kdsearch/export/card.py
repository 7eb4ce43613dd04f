"""The model card of an exported student: YAML front matter, figures with intervals, how to load it."""

from __future__ import annotations

import json

from kdsearch.core.canonical import canonical_json
from kdsearch.core.records import HardwareProfile, Latency
from kdsearch.export.manifest import Evaluation, Manifest

TAGS = ("knowledge-distillation", "kdsearch", "onnx")


def card(manifest: Manifest) -> str:
    """README.md of the exported folder; every figure in it stands in the manifest too."""
    parts = (
        _front_matter(manifest),
        _summary(manifest),
        _quality(manifest),
        _latency(manifest),
        _loading(manifest),
        _verification(manifest),
        _lineage(manifest),
    )
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text from outside, safe in a Markdown table: no pipes, no HTML, no line breaks, no code marks."""
    one_line = " ".join(text.split())
    return "".join(f"&#{ord(c)};" if c in "|<>&`*_[]\\" else c for c in one_line)


def _front_matter(manifest: Manifest) -> str:
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags:",
        *(f"- {tag}" for tag in (*TAGS, manifest.student)),
        f"metrics:\n- {json.dumps(manifest.metrics.objective, ensure_ascii=False)}",
        "---",
    ]
    return "\n".join(lines)


def _summary(manifest: Manifest) -> str:
    labels = ", ".join(plain(label) for label in manifest.labels)
    how = "without a teacher" if manifest.scheme == "none" else f"with the scheme `{manifest.scheme}`"
    return (
        f"# {manifest.study}, trial {manifest.trial}: `{manifest.student}`\n\n"
        f"A text classifier found by kdsearch and trained {how}. Labels, in the order of the logits: "
        f"{labels}. Texts are cut at {manifest.max_length} tokens."
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _quality(manifest: Manifest) -> str:
    metrics = manifest.metrics
    rows = [_evaluation_row("validation", metrics.validation)]
    if metrics.test is not None:
        rows.append(_evaluation_row("test", metrics.test))
    if metrics.teacher is not None:
        teacher = metrics.teacher
        cells = (teacher.quality, teacher.accuracy, teacher.macro_f1)
        rows.append(
            "| teacher, validation | " + " | ".join(map(_percent, cells[:1])) + " | – | "
            f"{_percent(cells[1])} | {_percent(cells[2])} | – | – |"
        )
    return "\n".join(
        (
            "## Quality\n",
            f"Objective of the search: `{plain(metrics.objective)}`. All figures in per cent; the interval "
            "is that of the objective (95 %, bootstrap over rows).\n",
            "| pool | objective | 95 % interval | accuracy | macro F1 | agreement with teacher | rows |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            _recall(manifest),
            "",
            _test_note(manifest),
        )
    )


def _evaluation_row(name: str, found: Evaluation) -> str:
    scores, (low, high) = found.scores, found.interval
    return (
        f"| {name} | {_percent(scores.quality)} | {_percent(low)} to {_percent(high)} "
        f"| {_percent(scores.accuracy)} | {_percent(scores.macro_f1)} | {_percent(scores.agreement)} "
        f"| {found.num_rows} |"
    )


def _recall(manifest: Manifest) -> str:
    recall = manifest.metrics.validation.scores.recall
    shares = (f"{plain(label)} {_percent(recall.get(label))}" for label in manifest.labels)
    return "Recall on validation: " + ", ".join(shares) + "."


def _test_note(manifest: Manifest) -> str:
    if manifest.metrics.test is None:
        return (
            "The study has no test pool. The search chose among its trials by the validation pool, so the "
            "validation figure is optimistic."
        )
    reads = manifest.metrics.test_reads
    return (
        "The search chose by the validation pool, so that figure is optimistic; the test pool took no part. "
        f"It is read once per exported trial: {reads} trial{'s' if reads != 1 else ''} of this study so far."
    )


def _latency(manifest: Manifest) -> str:
    timing = manifest.latency
    if timing.student is None:
        return "## Latency\n\nNot measured."
    rows = [_latency_row("student", timing.student)]
    if timing.teacher is not None:
        rows.append(_latency_row("teacher", timing.teacher))
    lines = [
        "## Latency\n",
        _profile(timing.student.profile) + "\n",
        "| | p50 ms | p90 ms | p99 ms | tokenising p50 ms | size MB | parameters | queries |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    if timing.speedup is not None:
        percentile = timing.objective.removesuffix("_ms")
        lines += ["", f"**{timing.speedup:.1f} times faster than the teacher** at {percentile}."]
    if timing.student.noisy:
        lines += ["", "The student's figure is noisy: something else may have used the machine meanwhile."]
    return "\n".join(lines)


def _latency_row(name: str, latency: Latency) -> str:
    return (
        f"| {name} | {latency.p50_ms:.3f} | {latency.p90_ms:.3f} | {latency.p99_ms:.3f} "
        f"| {latency.tokenize_p50_ms:.3f} | {latency.size_mb:.2f} | {latency.num_params} "
        f"| {latency.num_queries} |"
    )


def _profile(profile: HardwareProfile) -> str:
    threads = f"{profile.threads} thread{'s' if profile.threads != 1 else ''}"
    return (
        f"One query after the other, batch {profile.batch_size}, lengths: {plain(profile.length_policy)}, "
        "after a warm-up, nothing else training on the machine; "
        f"{profile.runtime} on {plain(profile.device_model)} ({profile.device}, {threads}). "
        "Tokenising is not in p50, p90 and p99. The figures are true of this hardware only."
    )


def _loading(manifest: Manifest) -> str:
    return f"""## Loading

With transformers (and kdsearch installed; no remote code is run):

```python
import kdsearch.hf  # registers the student with transformers' Auto classes
from transformers import pipeline

classify = pipeline("text-classification", model=".")
print(classify("a text"))
```

With onnxruntime alone:

```python
import json
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

labels = json.load(open("kdsearch.json"))["labels"]
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({manifest.max_length})
session = onnxruntime.InferenceSession("onnx/model.onnx", providers=["CPUExecutionProvider"])
ids = np.array([tokenizer.encode("a text").ids], dtype=np.int64)
logits = session.run(["logits"], {{"input_ids": ids, "attention_mask": np.ones_like(ids)}})[0]
print(labels[int(logits[0].argmax())])
```

From the command line: `kdsearch predict . "a text"`, or `kdsearch predict . --file in.csv --to out.csv`."""


def _verification(manifest: Manifest) -> str:
    checks = manifest.verification
    lines = (
        "The weights, read back, give the validation logits stored at the end of training: largest "
        f"difference {checks.stored_diff:.1e}, quality off by {checks.quality_diff:.1e}.",
        f"ONNX and torch logits over {checks.num_cases} shapes and {checks.num_rows} validation rows: "
        f"largest difference {checks.onnx_diff:.1e} (at most {checks.tolerance:g} is allowed).",
        "A row alone and the same row in a padded batch, through ONNX: largest difference "
        f"{checks.padding_diff:.1e}.",
        "The tokenizer of this folder gives the training's token ids on "
        f"{checks.num_texts} validation texts.",
        "SHA-256 of every file: `kdsearch.json`.",
    )
    return "## Checked before this folder was written\n\n" + "\n".join(f"- {line}" for line in lines)


def _lineage(manifest: Manifest) -> str:
    lineage = manifest.lineage
    params = "\n".join(
        f"| `{name}` | {plain(canonical_json(value))} |" for name, value in manifest.params.items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"""## Lineage

| | |
|---|---|
| study | {plain(manifest.study)} (file `{manifest.study_sha256}`) |
| trial | {manifest.trial} |
| teacher | {plain(lineage.teacher)} (`{lineage.teacher_fingerprint}`) |
| data | `{lineage.data_fingerprint}` |
| trained student | `{lineage.artifact}` |
| exported | {manifest.created_at} |

| parameter | value |
|---|---|
{params}

Versions: {versions}.

## Licence

Not stated. It depends on the licences of the teacher, its tokenizer and the training texts, which
kdsearch does not know; whoever publishes this folder should look at them and add `license:` above."""
