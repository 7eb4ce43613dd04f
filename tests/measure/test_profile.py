"""Hardware profiles tell apart what must not be compared."""

from __future__ import annotations

from pathlib import Path

from kdsearch.core.spec import LatencySpec
from kdsearch.measure.profile import cpu_model, hardware_profile

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu: vme

processor\t: 1
model name\t: Another
"""


def test_cpu_model_names_the_processor_with_its_generation(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert cpu_model(tmp_path / "cpuinfo") == "Intel(R) Xeon(R) Processor (family 6 model 143)"


def test_a_processor_without_a_name_still_has_a_model(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert cpu_model(tmp_path / "cpuinfo") == cpu_model(tmp_path / "missing") != ""


def test_the_key_is_stable_and_follows_the_protocol() -> None:
    base = hardware_profile(LatencySpec()).key
    assert base == hardware_profile(LatencySpec(warmup=0, min_queries=999, min_seconds=9.0)).key
    others = [LatencySpec(threads=2), LatencySpec(batch_size=8), LatencySpec(device="cuda", runtime="torch")]
    assert len({base, *(hardware_profile(spec).key for spec in others)}) == 4
