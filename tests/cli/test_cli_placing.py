"""`kdsearch worker script`: files that the systems they are for can read, and that hold no password."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

Run = Callable[..., Any]
COMMAND = ["kdsearch", "worker", "start", "--study", "sms-spam", "--device"]
SECRET = {
    "KDSEARCH_STORAGE": "postgresql://me:s3cret@host/db",
    "KDSEARCH_ARTIFACTS": "s3://key:s3cret@bucket",
}


def parsed(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("system", ["--slurm", "--kubernetes", "--compose"])
def test_no_password_stands_in_it_and_no_database_is_asked(inside: Run, system: str) -> None:
    answer = inside("worker", "script", "sms-spam", system, **SECRET)
    assert answer.code == 0, answer.err
    assert "s3cret" not in answer.out
    assert "sms-spam" in answer.out
    data = inside("worker", "script", "sms-spam", system, "--json").data("worker_script")
    assert data["text"].rstrip("\n") + "\n" == answer.out


@pytest.mark.parametrize("gpu", [(), ("--gpu",)])
def test_a_batch_file_is_shell_and_drains_in_time(inside: Run, gpu: tuple[str, ...]) -> None:
    text = inside("worker", "script", "sms-spam", "--slurm", "--workers", "8", "--threads", "3", *gpu).out
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert {"#SBATCH --array=1-8", "#SBATCH --cpus-per-task=4", "#SBATCH --signal=B:TERM@120"} <= set(lines)
    assert ("#SBATCH --gres=gpu:1" in lines) is bool(gpu)
    assert lines[-1].startswith("exec kdsearch worker start --study sms-spam --device")
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])  # SLURM reads none after a command


def test_a_batch_file_reads_its_settings_and_starts_the_worker(inside: Run, tmp_path: Any) -> None:
    script = tmp_path / "workers.sh"
    script.write_text(inside("worker", "script", "sms-spam", "--slurm").out)
    settings = tmp_path / "settings"
    settings.write_text("KDSEARCH_STORAGE=postgresql://me@host/db\nKDSEARCH_ARTIFACTS=file:///srv\n")
    program = tmp_path / "kdsearch"
    program.write_text('#!/bin/bash\necho "$KDSEARCH_STORAGE $KDSEARCH_ARTIFACTS $*"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "KDSEARCH_ENV": str(settings)}
    ran = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=env)
    arguments = "worker start --study sms-spam --device cpu --threads 1"
    assert ran.stdout == f"postgresql://me@host/db file:///srv {arguments}\n", ran.stderr
    settings.write_text("KDSEARCH_ARTIFACTS=file:///srv\n")
    lacking = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=env)
    assert lacking.returncode != 0
    assert "KDSEARCH_STORAGE" in lacking.stderr


@pytest.mark.parametrize("gpu", [(), ("--gpu",)])
def test_a_job_takes_its_settings_from_a_secret(inside: Run, gpu: tuple[str, ...]) -> None:
    text = inside(
        "worker", "script", "sms.spam_2", "--kubernetes", "--image", "registry.example/kdsearch:1", *gpu
    ).out
    job = parsed(text)
    assert (job["kind"], job["metadata"]["name"], job["spec"]["parallelism"]) == (
        "Job",
        "kdsearch-sms-spam-2",
        4,
    )
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/kdsearch:1"
    assert container["command"][:5] == [*COMMAND[:4], "sms.spam_2"]
    assert container["envFrom"] == [{"secretRef": {"name": "kdsearch"}}]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == ("1" if gpu else None)
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("gpu", [(), ("--gpu",)])
def test_a_compose_file_demands_its_settings(inside: Run, gpu: tuple[str, ...]) -> None:
    worker = parsed(inside("worker", "script", "sms-spam", "--compose", "--workers", "2", *gpu).out)[
        "services"
    ]["worker"]
    assert worker["command"][:6] == COMMAND
    assert worker["environment"]["KDSEARCH_STORAGE"] == "${KDSEARCH_STORAGE:?set it in .env}"
    assert worker["deploy"]["replicas"] == 2
    assert ("resources" in worker["deploy"]) is bool(gpu)


def test_one_system_at_a_time_and_only_names(inside: Run) -> None:
    for wrong in (
        ("sms-spam",),
        ("sms-spam", "--slurm", "--compose"),
        ("sms; rm -rf /", "--slurm"),
        ("sms-spam", "--compose", "--image", "a b"),
    ):
        assert inside("worker", "script", *wrong, "--json").error(2)["code"] == "usage"


def test_it_loads_nothing_heavy(inside: Run) -> None:
    code = (
        "import sys; sys.argv = ['kdsearch', 'worker', 'script', 'a', '--slurm']\n"
        "from kdsearch.cli.main import application\n"
        "application()(prog_name='kdsearch', standalone_mode=False)\n"
        "import json; print(json.dumps([m for m in ('torch', 'optuna', 'sqlalchemy') if m in sys.modules]))"
    )
    import sys

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == []
