"""The hardware profile of this host: figures of two profiles are never compared."""

from __future__ import annotations

import platform
from pathlib import Path

from kdsearch.core.records import HardwareProfile
from kdsearch.core.spec import LatencySpec

CPUINFO = Path("/proc/cpuinfo")
LENGTH_POLICY = "validation texts, real lengths"


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name; on Linux with family and model, for clouds hide the rest of the name."""
    fields: dict[str, str] = {}
    if cpuinfo.exists():
        for line in cpuinfo.read_text().partition("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    family = f" (family {fields['cpu family']} model {fields['model']})" if "cpu family" in fields else ""
    return fields["model name"] + family


def _gpu_model() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"


def hardware_profile(spec: LatencySpec) -> HardwareProfile:
    """What a figure taken here, by this protocol, is true of."""
    return HardwareProfile(
        device_model=_gpu_model() if spec.device == "cuda" else cpu_model(),
        device=spec.device,
        runtime=spec.runtime,
        threads=spec.threads,
        batch_size=spec.batch_size,
        length_policy=LENGTH_POLICY,
    )
