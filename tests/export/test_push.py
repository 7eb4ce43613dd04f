"""`kdsearch export --push-to-hub` against a Hub that runs here; nothing leaves the machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from kdsearch.core.errors import StorageError, UsageError, VerificationError
from kdsearch.export.bundle import export_student
from kdsearch.export.hub import check_repo, push
from kdsearch.export.recheck import verify_folder

TOKEN = "hf_thisIsSecret0123456789"


@dataclass
class Hub:
    """What the stub knows and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    exists: bool = False
    created: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: int = 0


def answer(hub: Hub, method: str, path: str, body: bytes) -> tuple[int, Any]:
    if hub.refuse:
        return hub.refuse, {"error": f"no, {TOKEN}"}
    if path.startswith("/api/whoami"):
        return 200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}}
    if path.startswith("/api/repos/create"):
        hub.exists = True
        hub.created.append(json.loads(body))
        return 200, {"url": f"{hub.url}/me/student", "name": "me/student"}
    if "/preupload/" in path:
        names = [each["path"] for each in json.loads(body)["files"]]
        modes = [
            {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names
        ]
        return 200, {"files": modes}
    if "/commit/" in path:
        _commit(hub, body)
        return 200, {
            "success": True,
            "commitOid": "c0ffee",
            "commitUrl": f"{hub.url}/me/student/commit/c0ffee",
        }
    if "/tree/" in path and hub.exists:
        return 200, [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in hub.files.items()]
    if path.startswith("/api/validate-yaml"):
        return 200, {"errors": [], "warnings": []}
    return (200, {"id": "me/student", "sha": "0", "siblings": []}) if hub.exists else (404, {"error": "none"})


def _commit(hub: Hub, body: bytes) -> None:
    for line in map(json.loads, body.decode().splitlines()):
        value = line["value"]
        if line["key"] == "file":
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "deletedFile":
            del hub.files[value["path"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.paths.append(f"{self.command} {self.path}")
            state.tokens.add(self.headers.get("Authorization", ""))
            status, data = answer(state, self.command, self.path, body)
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", state.url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", state.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    number = world.complete("bag")
    export_student(world.store, world.study, world.trial(number), to=tmp_path / "student")
    return tmp_path / "student"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_becomes_a_repository_and_verifies_from_there(
    folder: Path, hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert push(folder, "me/student", private=True) == f"{hub.url}/me/student/commit/c0ffee"
    assert "private" in (hub.created[0].get("visibility"), *hub.created[0]) and hub.files == contents(folder)
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}
    fetched = tmp_path / "fetched"
    for name, content in {**hub.files, ".gitattributes": b"*.onnx filter=lfs\n"}.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(content)
    assert len(list(verify_folder(fetched))) >= 3
    assert TOKEN not in "".join(capfd.readouterr())
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"


def test_an_earlier_export_is_replaced_and_anything_else_spared(folder: Path, hub: Hub) -> None:
    hub.exists, hub.files = True, {"kdsearch.json": b"{}", "onnx/old.onnx": b"old"}
    push(folder, "me/student")
    assert hub.files == contents(folder)
    hub.files = {"thesis.pdf": b"years of work"}
    with pytest.raises(UsageError.__base__, match="not an exported student"):
        push(folder, "me/student")
    assert hub.files == {"thesis.pdf": b"years of work"}


def test_what_does_not_verify_is_not_uploaded(folder: Path, hub: Hub) -> None:
    path = folder / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(VerificationError, match=r"altered: config\.json"):
        push(folder, "me/student")
    assert hub.paths == []


def test_refusals_are_sentences_without_the_token(folder: Path, hub: Hub, monkeypatch) -> None:
    for status, kind in ((401, UsageError), (403, UsageError), (500, StorageError)):
        hub.refuse = status
        with pytest.raises(kind, match=f"HTTP {status}") as caught:
            check_repo("me/student")
        assert TOKEN not in caught.value.what + caught.value.hint
    with pytest.raises(UsageError, match="no name of a repository"):
        check_repo("me/stu dent")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached"):
        check_repo("me/student")
