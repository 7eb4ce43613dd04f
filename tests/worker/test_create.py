"""Creating and resuming: what is stored, and every way in which a study file can contradict it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import text

from kdsearch.core.errors import ConflictError, DataError, StudyFileError
from kdsearch.core.studyfile import StudyFile
from kdsearch.search import check
from kdsearch.store import controls, reads
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.worker import create as create_module
from kdsearch.worker.create import create, create_or_resume

Write = Callable[..., StudyFile]


def quiet(_: str) -> None:
    """No progress wanted."""


def test_the_same_file_is_the_same_study(store: Store, write_study: Write) -> None:
    first = create_or_resume(store, write_study(), on_progress=quiet)
    second = create_or_resume(store, write_study(), on_progress=quiet)
    assert first.id == second.id


def test_of_two_processes_that_create_it_at_once_both_have_it(
    store: Store, write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes first while this one still reads the texts."""
    original, others = create_module.save_dataset, []

    def overtaken(*args: Any) -> str:
        if not others:
            others.append(None)
            others.append(create_or_resume(store, write_study(), on_progress=quiet).id)
        return original(*args)

    monkeypatch.setattr(create_module, "save_dataset", overtaken)
    record = create_or_resume(store, write_study(), on_progress=quiet)
    assert record.id == others[1]
    queued = optuna.load_study(study_name=record.optuna_name, storage=optuna_storage(store)).trials
    assert len(queued) == 4


def test_somebody_elses_optuna_study_of_that_name_is_left_alone(
    store: Store, write_study: Write, finish: Callable[[StudyFile], str]
) -> None:
    storage = optuna_storage(store)
    theirs = optuna.create_study(study_name="tiny", storage=storage)
    theirs.enqueue_trial({"student": "a teapot"})
    assert finish(write_study(trials=1)) == "done"
    assert [trial.state.name for trial in theirs.trials] == ["WAITING"]


def test_create_refuses_a_taken_name(store: Store, write_study: Write) -> None:
    create(store, write_study(), on_progress=quiet)
    with pytest.raises(ConflictError, match="'tiny' exists"):
        create(store, write_study(), on_progress=quiet)


def test_a_changed_file_is_a_conflict_that_shows_the_difference(store: Store, write_study: Write) -> None:
    create_or_resume(store, write_study(), on_progress=quiet)
    with pytest.raises(ConflictError) as caught:
        create_or_resume(store, write_study(replace=("filters: [8]", "filters: [8, 16]")), on_progress=quiet)
    assert "-    filters: [8]\n+    filters: [8, 16]" in caught.value.what


def test_the_same_file_read_otherwise_is_a_conflict_that_shows_what_it_meant(
    store: Store, write_study: Write
) -> None:
    file = write_study()
    created = create_or_resume(store, file, on_progress=quiet)
    otherwise = json.dumps({**created.spec_json, "a_key": "of another version"})
    change = text("UPDATE kdsearch.study SET spec_sha256 = 'another', spec_json = CAST(:json AS jsonb)")
    with store.engine.begin() as connection:
        connection.execute(change, {"json": otherwise})
    with pytest.raises(ConflictError, match="this very file, but another version") as caught:
        create_or_resume(store, file, on_progress=quiet)
    assert '-  "a_key": "of another version",' in caught.value.what
    assert '\n+  "' not in caught.value.what


def test_the_budget_may_change(store: Store, write_study: Write) -> None:
    create_or_resume(store, write_study(trials=5), on_progress=quiet)
    create_or_resume(store, write_study(trials=7), on_progress=quiet)
    assert reads.study(store.engine, "tiny").budget_trials == 7


def test_an_extension_outlives_the_same_file(store: Store, write_study: Write) -> None:
    file = write_study(trials=5)
    create_or_resume(store, file, on_progress=quiet)
    controls.extend(store.engine, "tiny", trials=3)
    create_or_resume(store, file, on_progress=quiet)
    assert reads.study(store.engine, "tiny").budget_trials == 8
    controls.stop(store.engine, "tiny")
    assert reads.study(store.engine, "tiny").budget_trials == 1
    create_or_resume(store, file, on_progress=quiet)  # whoever runs the file again wants it to go on
    row = reads.study(store.engine, "tiny")
    assert (row.state, row.error, row.budget_trials) == ("open", None, 5)


def test_other_texts_under_the_same_path_are_a_conflict(
    store: Store, write_study: Write, tmp_path: Path
) -> None:
    source = ("synthetic://spam_opinions?rows=160&seed=1", "train.csv")
    rows = "text,label\n" + "".join(
        f"opinion number {i},{'spam' if i % 2 else 'genuine'}\n" for i in range(40)
    )
    (tmp_path / "train.csv").write_text(rows)
    create_or_resume(store, write_study(replace=source), on_progress=quiet)
    (tmp_path / "train.csv").write_text(rows.replace("number 7", "number seven"))
    with pytest.raises(ConflictError, match="other texts"):
        create_or_resume(store, write_study(replace=source), on_progress=quiet)


def test_an_objective_must_name_a_label_of_the_data(store: Store, write_study: Write) -> None:
    file = write_study(replace=("latency: {warmup", 'objectives: {quality: "f1:ham"}\nlatency: {warmup'))
    with pytest.raises(StudyFileError) as caught:
        create(store, file, on_progress=quiet)
    (problem,) = caught.value.problems
    assert problem.where is not None
    assert problem.where.line is not None
    assert "ham" in problem.message


@pytest.mark.parametrize("quality", ["f1:odd", "recall@precision=0.9:odd"])
def test_an_objective_that_no_validation_row_can_raise_is_refused(
    store: Store, write_study: Write, tmp_path: Path, quality: str
) -> None:
    for name, labels in {"train": ("ham", "spam", "odd"), "validation": ("ham", "spam")}.items():
        rows = "".join(f"{name} text {i},{labels[i % len(labels)]}\n" for i in range(30))
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)
    text = write_study(
        replace=("latency: {warmup", f'objectives: {{quality: "{quality}"}}\nlatency: {{warmup')
    )
    path = tmp_path / "absent.yaml"
    path.write_text(
        text.text.replace("synthetic://spam_opinions?rows=160&seed=1", "train.csv")
        .replace("synthetic://spam_opinions?rows=80&seed=2", "validation.csv")
        .replace("  test: synthetic://spam_opinions?rows=80&seed=3\n", "")
    )
    with pytest.raises(StudyFileError) as caught:
        create(store, check.load(path, {}), on_progress=quiet)
    (problem,) = caught.value.problems
    assert "no validation row" in problem.message
    assert problem.expected == "one of ham, spam"


def test_a_built_teacher_must_be_fine_tuned(store: Store, write_study: Write) -> None:
    line = "  finetune: {epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 2}\n"
    with pytest.raises(StudyFileError) as caught:
        create(store, write_study(replace=(line, "")), on_progress=quiet)
    assert "finetune" in caught.value.problems[0].expected


def test_a_teacher_that_is_nowhere(store: Store, tmp_path: Path, write_study: Write) -> None:
    build = "  build: {layers: 1, hidden: 16, heads: 2, vocab_size: 400}\n"
    file = write_study(replace=(build, "  model: ./no-such-teacher\n"))
    with pytest.raises(DataError, match="no-such-teacher"):
        create(store, file, on_progress=quiet)


def test_nothing_is_left_behind_by_a_refused_file(store: Store, write_study: Write, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError):
        check.load(_broken(tmp_path), {})
    assert reads.studies(store.engine) == []


def _broken(folder: Path) -> Path:
    path = folder / "broken.yaml"
    path.write_text("version: 1\nname: broken\ndata: {train: a.csv}\n")
    return path
