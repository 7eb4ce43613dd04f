"""The model card of an exported student: figures with intervals, what was checked, where it comes from."""

from __future__ import annotations

from kdsearch.core.canonical import canonical_json
from kdsearch.core.records import HardwareProfile, Latency
from kdsearch.export.front_matter import front_matter
from kdsearch.export.manifest import Evaluation, Manifest, Quantised, Verification
from kdsearch.export.snippets import loading

QUESTIONS = """## Left open

kdsearch does not know these, and does not guess. Whoever publishes this folder answers them, and adds the
keys to the top of this file:

- `license`: under which licence may this student be used? The teacher's, its tokenizer's and the texts' may
  all bear on that.
- `language`: in which languages were the training texts, and does the student have to do with others?
- `datasets`: from where are the texts, may a model that was trained on them be published, and do they hold
  personal data?
- Intended use: what is decided by its answers, for whom, and who looks at its mistakes?"""


def card(manifest: Manifest) -> str:
    """README.md of the exported folder; every figure in it stands in the manifest too."""
    parts = (
        front_matter(manifest),
        _summary(manifest),
        _quality(manifest),
        _latency(manifest),
        *([] if manifest.quantised is None else [_int8(manifest, manifest.quantised)]),
        loading(manifest),
        _verification(manifest),
        _lineage(manifest),
        QUESTIONS,
    )
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text from outside, safe in a Markdown table: no pipes, no HTML, no line breaks, no code marks."""
    one_line = " ".join(text.split())
    return "".join(f"&#{ord(c)};" if c in "|<>&`*_[]\\" else c for c in one_line)


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


def _int8(manifest: Manifest, found: Quantised) -> str:
    value, low, high = (100 * share for share in found.difference)
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.operators.items())
    return "\n".join(
        (
            "## int8\n",
            "`onnx/model_int8.onnx` has 8-bit weights, and quantises activations as they come "
            f"({kinds}). It is another model than the one that the search measured, so it was measured anew "
            "when this folder was written, on the validation pool and on this machine; the test pool was not "
            "read for it. Texts went one at a time.\n",
            "| | objective | 95 % interval | accuracy | p50 ms | p90 ms | p99 ms | size MB |",
            "|---|---|---|---|---|---|---|---|",
            _int8_row("float32", manifest.metrics.validation, found.float_latency),
            _int8_row("int8", found.validation, found.latency),
            "",
            f"- **{_int8_verdict(found)}**",
            f"- Quality minus float32, same rows: {value:+.2f} points (95 % {low:+.2f} to {high:+.2f}). The "
            f"same label on {_percent(found.same_label)} % of the rows; logits differ by up to "
            f"{found.largest_diff:.2g}.",
            "- A text's logits depend on the batch it is in, for the batch shares the scale of what is "
            f"quantised on the way: in padded batches of 32 they move by up to {found.batch_diff:.2g}, and "
            f"the label of {_percent(found.batch_changed)} % of the rows changes. `predict.py` and "
            "`kdsearch predict` therefore run int8 one text at a time.",
            f"- {_int8_profile(manifest, found)}",
        )
    )


def _int8_row(name: str, quality: Evaluation, latency: Latency) -> str:
    low, high = quality.interval
    return (
        f"| {name} | {_percent(quality.scores.quality)} | {_percent(low)} to {_percent(high)} "
        f"| {_percent(quality.scores.accuracy)} | {latency.p50_ms:.3f} | {latency.p90_ms:.3f} "
        f"| {latency.p99_ms:.3f} | {latency.size_mb:.2f} |"
    )


def _int8_verdict(found: Quantised) -> str:
    """In plain words: smaller, and then faster or slower, better or worse."""
    size = found.latency.size_mb / found.float_latency.size_mb
    speed = "faster" if found.ratio < 1 else "slower"
    times = 1 / found.ratio if found.ratio < 1 else found.ratio
    pace = "as fast as float32" if 0.9 <= found.ratio <= 1.1 else f"{times:.2f} times {speed} than float32"
    value, low, high = found.difference
    worth = "its quality is not told apart from that of float32"
    if high < 0 or low > 0:
        worth = "its quality is worse" if value < 0 else "its quality is better"
    return f"{_percent(size)} % of the size, {pace} at p50 here, and {worth}."


def _int8_profile(manifest: Manifest, found: Quantised) -> str:
    here, studied = found.latency.profile, manifest.latency.student
    noisy = found.latency.noisy or found.float_latency.noisy
    notes = [f"Both were timed in turn on {plain(here.device_model)}, by the study's protocol."]
    if studied is not None and studied.profile != here:
        notes.append(
            "This is not the hardware profile of the study: these two rows compare with each other, not with "
            "the figures above."
        )
    if noisy:
        notes.append("The figures are noisy: something else may have used the machine meanwhile.")
    return " ".join(notes)


def _verification(manifest: Manifest) -> str:
    checks = manifest.verification
    lines = (
        "The weights, read back, give the validation logits stored at the end of training: largest "
        f"difference {checks.stored_diff:.1e}, quality off by {checks.quality_diff:.1e}.",
        *_onnx_checks(checks),
        "The tokenizer of this folder gives the training's token ids on "
        f"{checks.num_texts} validation texts.",
        "SHA-256 of every file: `kdsearch.json`.",
    )
    return "## Checked before this folder was written\n\n" + "\n".join(f"- {line}" for line in lines)


def _onnx_checks(checks: Verification) -> tuple[str, ...]:
    if checks.onnx_diff is None or checks.padding_diff is None:
        return ()
    return (
        f"ONNX and torch logits over {checks.num_cases} shapes and {checks.num_rows} validation rows: "
        f"largest difference {checks.onnx_diff:.1e} (at most {checks.tolerance:g} is allowed).",
        "A row alone and the same row in a padded batch, through ONNX: largest difference "
        f"{checks.padding_diff:.1e}.",
    )


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

Versions: {versions}."""
