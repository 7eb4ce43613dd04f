"""The manifest survives its trip through JSON, and the card says what the manifest says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from kdsearch.core.errors import NotFoundError, VerificationError
from kdsearch.core.records import HardwareProfile, Latency, Scores
from kdsearch.export.card import card, plain
from kdsearch.export.manifest import (
    MANIFEST,
    Evaluation,
    Lineage,
    Manifest,
    Metrics,
    Timing,
    Verification,
    check_file,
    hash_files,
    read_manifest,
    write_manifest,
)

HOSTILE = "<img src=x>|`a`"
PROFILE = HardwareProfile(
    device_model="CPU | 9000", device="cpu", runtime="onnx", threads=2, batch_size=1, length_policy="real"
)


def latency(p90_ms: float, profile: HardwareProfile = PROFILE) -> Latency:
    return Latency(
        p50_ms=0.1,
        p90_ms=p90_ms,
        p99_ms=9.0,
        mean_ms=0.2,
        num_queries=200,
        seconds=1.0,
        size_mb=1.25,
        num_params=12345,
        tokenize_p50_ms=0.03,
        noisy=False,
        profile=profile,
    )


def evaluation(quality: float) -> Evaluation:
    scores = Scores(
        quality=quality,
        accuracy=0.9,
        macro_f1=0.89,
        nll=0.3,
        recall={"ham": 0.91, HOSTILE: 0.88},
        agreement=0.97,
    )
    return Evaluation(scores=scores, interval=(quality - 0.05, quality + 0.04), num_rows=123)


def manifest(**changes: object) -> Manifest:
    made = Manifest(
        study="sms-spam",
        study_sha256="a" * 64,
        trial=12,
        student="textcnn",
        scheme="offline",
        params={"textcnn.kernel_sizes": (2, 3), "offline.lambda": 0.5, "learning_rate": 1e-3},
        labels=("ham", HOSTILE),
        max_length=64,
        pad_id=0,
        metrics=Metrics(
            objective=f"f1:{HOSTILE}",
            validation=evaluation(0.91),
            test=evaluation(0.87),
            test_reads=3,
            teacher=evaluation(0.95).scores,
        ),
        latency=Timing(objective="p90_ms", student=latency(0.5), teacher=latency(20.0)),
        lineage=Lineage(
            artifact="b" * 64,
            data_fingerprint="d" * 64,
            teacher="owner/teacher",
            teacher_fingerprint="e" * 64,
        ),
        verification=Verification(
            tolerance=1e-3,
            stored_diff=1e-7,
            onnx_diff=2e-6,
            padding_diff=3e-7,
            num_cases=32,
            num_rows=123,
            num_texts=123,
            quality_diff=0.0,
        ),
        versions={"kdsearch": "0.1", "torch": "2.10"},
        created_at="2026-01-02T03:04:05+00:00",
        files={"model.safetensors": "f" * 64},
    )
    return replace(made, **changes)


def front_matter(text: str) -> dict:
    _, yaml, _ = text.split("---\n", 2)
    return YAML(typ="safe").load(yaml)


def test_round_trip_through_json(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()
    bare = manifest(
        metrics=replace(manifest().metrics, test=None, teacher=None),
        latency=Timing(objective="p90_ms", student=None, teacher=None),
    )
    write_manifest(tmp_path, bare)
    assert read_manifest(tmp_path) == bare


def test_the_manifest_states_its_format_and_the_speedup(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    data = json.loads((tmp_path / MANIFEST).read_text())
    assert data["format"] == 2 and data["latency"]["speedup"] == pytest.approx(40.0)


def test_no_speedup_across_hardware_profiles() -> None:
    elsewhere = latency(20.0, replace(PROFILE, threads=1))
    assert Timing(objective="p90_ms", student=latency(0.5), teacher=elsewhere).speedup is None


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 1, "metrics": 3}', "{}", "null"])
def test_a_damaged_manifest_is_a_verification_error(content: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(VerificationError, match="damaged"):
        read_manifest(tmp_path)


def test_a_later_format_and_a_missing_manifest_have_messages(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not an exported student"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest().to_json(), "format": 3}))
    with pytest.raises(VerificationError, match="format 3"):
        read_manifest(tmp_path)


def test_hashes_cover_every_file_and_find_an_altered_one(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("model.safetensors", "onnx/model.onnx", MANIFEST):
        (tmp_path / name).write_bytes(name.encode())
    hashes = hash_files(tmp_path)
    assert set(hashes) == {"model.safetensors", "onnx/model.onnx"}
    made = manifest(files=hashes)
    assert check_file(tmp_path, made, "onnx/model.onnx") == tmp_path / "onnx/model.onnx"
    (tmp_path / "onnx/model.onnx").write_bytes(b"onnx/model.onnX")
    with pytest.raises(VerificationError, match="not what was exported"):
        check_file(tmp_path, made, "onnx/model.onnx")
    (tmp_path / "onnx/model.onnx").unlink()
    with pytest.raises(VerificationError, match="missing"):
        check_file(tmp_path, made, "onnx/model.onnx")


def test_front_matter_is_yaml_and_leaves_the_licence_open() -> None:
    found = front_matter(card(manifest()))
    assert found["pipeline_tag"] == "text-classification" and found["library_name"] == "transformers"
    assert {"knowledge-distillation", "kdsearch", "textcnn"} <= set(found["tags"])
    assert found["metrics"] == [f"f1:{HOSTILE}"]
    assert not {"license", "language", "datasets"} & set(found)
    questions = card(manifest()).partition("## Left open")[2]
    assert questions.count("?") >= 4 and "`license`" in questions and "`language`" in questions


def test_model_index_is_what_the_hub_reads(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(manifest()), encoding="utf-8")
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    by_split = {(r.dataset_split, r.metric_type, r.metric_name): r.metric_value for r in results}
    assert len(results) == 6 and {r.task_type for r in results} == {"text-classification"}
    assert by_split["validation", "f1", f"f1:{HOSTILE}, 95 % interval 0.8600 to 0.9500"] == 0.91
    assert by_split["test", "f1", f"f1:{HOSTILE}, 95 % interval 0.8200 to 0.9100"] == 0.87
    assert by_split["test", "accuracy", "accuracy"] == 0.9
    bare = manifest(metrics=replace(manifest().metrics, test=None))
    assert len(front_matter(card(bare))["model-index"][0]["results"]) == 1


def test_the_teacher_is_the_base_model_where_the_hub_has_it() -> None:
    assert "base_model" not in front_matter(card(manifest()))
    lineage = replace(manifest().lineage, teacher_hub_id="owner/teacher")
    assert front_matter(card(manifest(lineage=lineage)))["base_model"] == "owner/teacher"


@pytest.mark.parametrize(
    ("formats", "library"),
    [(("hf", "onnx"), "transformers"), (("onnx-int8",), "onnx"), (("torch",), "pytorch")],
)
def test_the_library_is_one_that_loads_it(formats: tuple[str, ...], library: str) -> None:
    found = front_matter(card(manifest(formats=formats)))
    assert found["library_name"] == library and ("onnx" in found["tags"]) == (library != "pytorch")


def test_the_card_gives_quality_with_intervals_and_speedup() -> None:
    text = card(manifest())
    assert "| validation | 91.00 | 86.00 to 95.00 | 90.00 | 89.00 | 97.00 | 123 |" in text
    assert "| test | 87.00 | 82.00 to 91.00 |" in text
    assert "| teacher, validation | 95.00 |" in text
    assert "3 trials of this study" in text
    assert "**40.0 times faster than the teacher** at p90." in text
    assert "CPU &#124; 9000" in text and "2 threads" in text


def test_tables_have_as_many_cells_as_columns() -> None:
    tables = [block for block in card(manifest()).split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for block in tables:
        assert len({row.count("|") for row in block.splitlines()}) == 1, block


def test_text_from_outside_is_no_markup() -> None:
    body = card(manifest()).split("---\n", 2)[2]
    assert HOSTILE not in body and "<img" not in body
    assert plain(HOSTILE) in body
    assert plain("a\n# b") == "a # b"


def test_a_study_without_test_pool_or_latency_says_so() -> None:
    bare = manifest(
        metrics=replace(manifest().metrics, test=None, test_reads=0, teacher=None),
        latency=Timing(objective="p90_ms", student=None, teacher=None),
        scheme="none",
    )
    text = card(bare)
    assert "no test pool" in text and "Not measured." in text and "without a teacher" in text
