"""docker-compose.yml, the Dockerfile, .env.example: nothing open or guessable, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from sqlalchemy import make_url

from kdsearch.cli import db, main

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (ROOT / "docker-compose.yml").read_text()
PASSWORDS = {"POSTGRES_PASSWORD", "KDSEARCH_WORKER_PASSWORD", "KDSEARCH_DASHBOARD_PASSWORD"}
OURS = ("migrate", "worker", "worker-gpu", "dashboard")


def _services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = YAML(typ="safe").load(SOURCE)["services"]
    return loaded


SERVICES = _services()


def role(service: str) -> str:
    """As whom a service connects."""
    url = re.sub(r"\$\{\w+:\?[^}]*\}", "secret", SERVICES[service]["environment"]["KDSEARCH_STORAGE"])
    return str(make_url(url).username)


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"dashboard"}
    assert [p for p in ports["dashboard"] if not p.startswith("127.0.0.1:")] == []
    assert [name for name, service in SERVICES.items() if "network_mode" in service] == []


def test_every_password_has_to_be_set() -> None:
    used = re.findall(r"\$\{(\w*PASSWORD)([^}]*)\}", SOURCE)
    assert {name for name, _ in used} == PASSWORDS
    assert {rest for _, rest in used} == {":?set it in .env"}
    written = re.findall(r"PASSWORD: (?!\$\{\w+:\?)(\S+)", SOURCE)
    assert written == []
    assert re.findall(r"://\w+:(?!\$\{\w+:\?)", SOURCE) == []


def test_the_example_names_every_setting_and_no_password() -> None:
    example = (ROOT / ".env.example").read_text()
    values = dict(re.findall(r"^(\w+)=(.*)$", example, flags=re.MULTILINE))
    asked = dict(re.findall(r"\$\{(\w+)(?::-([^}]*))?", SOURCE))
    assert set(asked) == set(values)
    assert {values[name] for name in PASSWORDS} == {""}
    assert {name: values[name] for name in set(asked) - PASSWORDS} == {
        name: asked[name] for name in set(asked) - PASSWORDS
    }
    passed_on = re.findall(r"^  (AWS_\w+):$", SOURCE, flags=re.MULTILINE)
    assert passed_on == re.findall(r"^# (AWS_\w+)=$", example, flags=re.MULTILINE)


def test_each_service_has_its_own_role_and_no_other_password() -> None:
    roles = {name: role(name) for name in OURS}
    assert roles == {
        "migrate": SERVICES["db"]["environment"]["POSTGRES_USER"],
        "worker": db.WORKER,
        "worker-gpu": db.WORKER,
        "dashboard": db.DASHBOARD,
    }
    known = {name: set(re.findall(r"\w*PASSWORD", str(SERVICES[name]["environment"]))) for name in OURS}
    assert known == {
        "migrate": PASSWORDS,
        "worker": {"KDSEARCH_WORKER_PASSWORD"},
        "worker-gpu": {"KDSEARCH_WORKER_PASSWORD"},
        "dashboard": {"KDSEARCH_DASHBOARD_PASSWORD"},
    }


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_its_options(name: str) -> None:
    program, *words = SERVICES[name]["command"]
    assert program == "kdsearch"
    command: Any = main.load(words.pop(0))
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert not hasattr(command, "commands")


def test_everything_waits_for_what_it_needs() -> None:
    healthy = {"db": {"condition": "service_healthy"}}
    migrated = {"migrate": {"condition": "service_completed_successfully"}}
    waits = {name: service.get("depends_on") for name, service in SERVICES.items()}
    assert waits == {
        "db": None, "migrate": healthy, "worker": migrated, "worker-gpu": migrated, "dashboard": migrated,
    }  # fmt: skip
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == {"db", "dashboard"}
    assert "/_stcore/health" in str(SERVICES["dashboard"]["healthcheck"])


def test_workers_are_asked_for_and_share_what_a_host_shares() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"worker": ["cpu"], "worker-gpu": ["gpu"]}
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    for name in profiles:
        assert {"artifacts:/artifacts", "locks:/locks", "state:/state"} <= set(SERVICES[name]["volumes"])
        assert "container_name" not in SERVICES[name]  # --scale
    assert SERVICES["worker"]["image"] != SERVICES["worker-gpu"]["image"]


def test_the_dashboard_writes_nowhere() -> None:
    dashboard = SERVICES["dashboard"]
    assert dashboard["read_only"] is True
    assert [v for v in dashboard["volumes"] if not v.endswith(":ro")] == []


@pytest.mark.parametrize("name", OURS)
def test_no_service_has_powers(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert "restart" in SERVICES[name]


# ---------------------------------------------------------------- the image

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_image_is_built_from_files_that_exist() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert [s for s in sources if not (ROOT / s).exists()] == []
    assert {s.split("/")[0] for s in sources} <= allowed


def test_the_image_runs_as_nobody_in_particular() -> None:
    (number,) = re.findall(r"--uid (\d+)", DOCKERFILE)
    assert re.findall(r"^USER (.+)$", DOCKERFILE, flags=re.MULTILINE) == [f"{number}:{number}"]


def test_the_image_has_every_folder_that_is_mounted() -> None:
    """A volume that is new starts with the owner of the folder in the image: else nobody may write there."""
    (made,) = re.findall(r"install -d -o kdsearch -g kdsearch (.+)$", DOCKERFILE, flags=re.MULTILINE)
    volumes = {volume for name in OURS for volume in SERVICES[name].get("volumes", [])}
    named = {v.split(":")[1] for v in volumes if re.match(r"\w+:", v)}
    assert named <= set(made.split())
