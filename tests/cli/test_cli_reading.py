"""Commands that read: pareto, best, trial, study, in every form of answer, over a real database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text
from sqlalchemy import text

from kdsearch.cli import answers, output, trial
from kdsearch.cli.story import Story
from kdsearch.core.records import Scores
from kdsearch.store import reads, studies
from kdsearch.store.connect import Store
from kdsearch.store.transactions import begin

Run = Callable[..., Any]
SCORES = Scores(quality=0.5, accuracy=0.5, macro_f1=0.5, nll=1.0, recall={"ham": 1.0, "spam": 0.0})
FIELDS = {
    "trial",
    "state",
    "student",
    "scheme",
    "params",
    "quality",
    "latency_ms",
    "size_mb",
    "on_front",
    "standing",
    "feasible",
    "speedup",
    "coverage",
    "recall",
    "teacher_quality",
    "peak_memory_mb",
    "origin",
}


def test_pareto_as_json(kdsearch: Run, filled: str) -> None:
    data = kdsearch("pareto", "opinions", "--json", storage=filled).data("pareto")
    assert data["study"] == "opinions"
    assert (data["quality"], data["latency"]) == ("f1:spam", "p90_ms")
    assert data["teacher"] == {"quality": 0.96, "latency_ms": 25.0, "size_mb": 90.0}
    assert data["profile"]["device_model"] == "A CPU"
    assert [trial["trial"] for trial in data["trials"]] == list(range(7))
    assert all(set(trial) == FIELDS for trial in data["trials"])
    assert {trial["trial"] for trial in data["trials"] if trial["on_front"]} == {0, 1, 2}


def test_a_trial_of_pareto_as_json(kdsearch: Run, filled: str) -> None:
    trial = kdsearch("pareto", "opinions", "--json", storage=filled).data("pareto")["trials"][1]
    assert trial == {
        "trial": 1,
        "state": "complete",
        "student": "textcnn",
        "scheme": "offline",
        "params": {
            "textcnn.kernel_sizes": [2, 3, 4],
            "textcnn.filters": 128,
            "offline.lambda": 0.75,
            "offline.loss": "kl",
            "learning_rate": 0.001,
            "batch_size": 32,
        },
        "quality": 0.95,
        "latency_ms": 2.5,
        "size_mb": 3.0,
        "on_front": True,
        "standing": None,
        "feasible": True,
        "speedup": 10.0,
        "coverage": pytest.approx(0.925),
        "recall": {"ham": 0.95, "spam": 0.95},
        "teacher_quality": 0.97,
        "peak_memory_mb": 1234.5,
        "origin": "",
    }


def test_pareto_quiet_prints_the_front_fastest_first(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("pareto", "opinions", "-q", storage=filled)
    assert (answer.code, answer.out, answer.err) == (0, "2\n0\n1\n", "")


def test_pareto_filters_first(kdsearch: Run, filled: str) -> None:
    assert kdsearch("pareto", "opinions", "-q", "--within", "latency_ms=2", storage=filled).out == "2\n0\n"
    assert kdsearch("pareto", "opinions", "-q", "--within", "size_mb=1", storage=filled).out == "2\n"


def test_pareto_for_people(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("pareto", "opinions", storage=filled)
    assert answer.code == 0
    assert "3 on the front of 4 complete trials" in answer.out
    rows = [line.split() for line in answer.out.splitlines() if line.lstrip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["2", "0", "1"]
    assert "200×" in answer.out
    assert "teacher" in answer.out
    assert "\x1b" not in answer.out
    assert "kdsearch export opinions" in answer.err


def test_pareto_of_everything_marks_the_front(kdsearch: Run, filled: str) -> None:
    out = kdsearch("pareto", "opinions", "--all", storage=filled).out
    starred = [line for line in out.splitlines() if line.lstrip().startswith("★")]
    assert [line.split()[1] for line in starred] == ["2", "0", "1", "on"]  # and what the star means
    assert "bilstm" in out


def test_pareto_names_the_next_command_when_empty(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("pareto", "opinions", "--within", "latency_ms=0.01", storage=filled)
    assert (answer.code, answer.out) == (0, "")
    assert "kdsearch pareto opinions" in answer.err


def test_an_untouched_study_answers_with_the_next_command(kdsearch: Run, store: Store, fresh: str) -> None:
    assert fresh == "fresh"
    pareto = kdsearch("pareto", "fresh", storage=store.url)
    assert (pareto.code, pareto.out) == (0, "")
    assert "kdsearch study show fresh" in pareto.err
    trials = kdsearch("trial", "list", "fresh", storage=store.url)
    assert (trials.code, trials.out) == (0, "")
    assert "kdsearch worker start --study fresh" in trials.err
    shown = kdsearch("study", "show", "fresh", storage=store.url)
    assert "0 of 8" in shown.out
    assert "kdsearch worker start --study fresh" in shown.err
    best = kdsearch("best", "fresh", storage=store.url)
    assert best.code == 6
    assert "kdsearch study show fresh" in best.err
    data = kdsearch("pareto", "fresh", "--json", storage=store.url).data("pareto")
    assert (data["teacher"], data["profile"], data["trials"]) == (None, None, [])


def test_best(kdsearch: Run, filled: str) -> None:
    assert kdsearch("best", "opinions", "-q", storage=filled).out == "1\n"
    within = kdsearch("best", "opinions", "--within", "latency_ms=2", "--json", storage=filled).data("best")
    assert (within["trial"], within["study"], within["on_front"]) == (0, "opinions", True)
    assert within["teacher"]["latency_ms"] == 25.0
    shown = kdsearch("best", "opinions", storage=filled)
    assert "0.9500" in shown.out
    assert "kdsearch export opinions --trial 1" in shown.err


def test_best_within_nothing_is_exit_6_and_names_the_fastest(kdsearch: Run, filled: str) -> None:
    error = kdsearch("best", "opinions", "--within", "latency_ms=0.1", "--json", storage=filled).error(6)
    assert error["code"] == "nothing_feasible"
    assert "trial 2 (bag) with 0.125 ms" in error["message"]


def test_trial_list(kdsearch: Run, filled: str) -> None:
    data = kdsearch("trial", "list", "opinions", "--json", storage=filled).data("trials")
    states = [trial["state"] for trial in data["trials"]]
    assert states == ["complete"] * 4 + ["rejected", "failed", "running"]
    assert all(set(trial) == FIELDS for trial in data["trials"])
    assert kdsearch("trial", "list", "opinions", "-q", "--state", "failed", storage=filled).out == "5\n"
    assert kdsearch("trial", "list", "opinions", "-q", "--front", storage=filled).out == "0\n1\n2\n"
    table = kdsearch("trial", "list", "opinions", storage=filled).out
    assert "kernel_sizes 2-3-4" in table
    assert "rejected" in table
    assert "★ on the front" in table
    assert "coverage" in table and "its teacher" in table


def test_trial_list_of_nothing(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("trial", "list", "opinions", "--state", "paused", storage=filled)
    assert (answer.code, answer.out) == (0, "")
    assert "kdsearch trial list opinions" in answer.err


def test_a_state_that_is_none(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("trial", "list", "opinions", "--state", "finished", storage=filled)
    assert answer.code == 2
    assert "complete" in answer.err


def test_trial_show(kdsearch: Run, filled: str) -> None:
    data = kdsearch("trial", "show", "opinions", "6", "--json", storage=filled).data("trial")
    assert [epoch["epoch"] for epoch in data["epochs"]] == [1, 2]
    assert data["state"] == "running"
    shown = kdsearch("trial", "show", "opinions", "6", storage=filled).out
    assert "0.7000" in shown
    assert "rows seen" in shown
    assert [line.split()[:3] for line in shown.splitlines() if " distil " in line] == [
        ["1", "distil", "1000"],
        ["2", "distil", "2000"],
    ]
    kept = kdsearch("trial", "show", "opinions", "1", storage=filled).out
    assert "kept: epoch 5 of 6; 6000 rows seen; trained in 12.5 s; 1234 MB of memory at most" in kept
    assert "coverage 0.9250, recall: ham 0.950, spam 0.950" in kept
    assert "teacher trained beside it: f1:spam 0.9700, accuracy 0.9700" in kept
    assert "parameters: filters 128, kernel_sizes 2-3-4" in kept
    failed = kdsearch("trial", "show", "opinions", "5", storage=filled)
    assert "it broke" in failed.out
    done = kdsearch("trial", "show", "opinions", "1", "--json", storage=filled).data("trial")
    assert done["latency"]["profile"]["runtime"] == "onnx"
    assert done["artifact"] == "a" * 64


def test_trial_that_is_not_there(kdsearch: Run, filled: str) -> None:
    answer = kdsearch("trial", "show", "opinions", "99", storage=filled)
    assert answer.code == 3
    assert "99" in answer.err
    assert "kdsearch trial list" in answer.err


@pytest.mark.parametrize(
    "command",
    [
        ("pareto",),
        ("best",),
        ("trial", "list"),
        ("study", "show"),
        ("worker", "start", "--study"),
        ("dashboard",),
    ],
)
def test_an_unknown_study_is_exit_3_with_a_near_name(kdsearch: Run, filled: str, command) -> None:
    error = kdsearch(*command, "opinion", "--json", storage=filled).error(3)
    assert error["code"] == "not_found"
    assert "opinions" in error["hint"]


def test_study_list(kdsearch: Run, filled: str) -> None:
    (study,) = kdsearch("study", "list", "--json", storage=filled).data("studies")["studies"]
    assert study["study"] == "opinions"
    assert study["trials"] == {"complete": 4, "rejected": 1, "failed": 1, "running": 1}
    assert study["budget"] == {"trials": 8, "epochs": None, "hours": None, "gpu_hours": None, "failed": 10}
    assert (study["spent"]["trials"], study["spent"]["failed"]) == (7, 1)
    assert kdsearch("study", "list", "-q", storage=filled).out == "opinions\n"
    assert "6/8" in kdsearch("study", "list", storage=filled).out


def test_study_list_of_an_empty_database(kdsearch: Run, database: str) -> None:
    answer = kdsearch("study", "list", storage=database)
    assert (answer.code, answer.out) == (0, "")
    assert "kdsearch run" in answer.err


def test_study_show(kdsearch: Run, filled: str) -> None:
    data = kdsearch("study", "show", "opinions", "--json", storage=filled).data("study")
    assert data["teacher"]["quality"] == 0.96
    assert data["front"] == [2, 0, 1]
    assert data["spec"]["objectives"]["quality"] == "f1:spam"
    assert (
        kdsearch("study", "show", "opinions", "--file", storage=filled).out == "version: 1\nname: opinions\n"
    )
    shown = kdsearch("study", "show", "opinions", storage=filled).out
    assert "6 of 8" in shown
    assert "budget: 7 of 8 trials" in shown
    assert "1 of at most 10 failures" in shown
    assert "sampler tpe, pruner none" in shown
    assert "texts: train train.csv, validation validation.csv\n" in shown


def test_study_show_tells_what_the_teacher_is_worth(kdsearch: Run, store: Store, filled: str) -> None:
    study = studies.find_study(store.engine, "opinions")
    with begin(store.engine) as connection:
        connection.execute(text("UPDATE kdsearch.preparation SET state = 'done'"))
    shown = kdsearch("study", "show", "opinions", storage=filled).out
    assert "teacher: f1:spam 0.9600, p90 25.000 ms, 90.00 MB\n" in shown
    assert "warning" not in shown
    studies.set_teacher(store.engine, study.id, SCORES, reads.study(store.engine, "opinions").teacher.latency)
    shown = kdsearch("study", "show", "opinions", storage=filled).out
    assert "warning: the teacher finds no validation text of 'spam'; is `label_map` right?" in shown


def test_a_narrow_terminal_gets_the_tables_without_parameters(
    store: Store, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = reads.study(store.engine, "opinions")
    rows = reads.trials(store.engine, study.id)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    shown = {}
    for columns in (80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown[columns] = output.rendered(answers.trials(study, rows, states=True))
    assert "learning_rate" in shown[140] and "trial show" not in shown[140]
    assert "learning_rate" not in shown[80] and "kdsearch trial show opinions TRIAL" in shown[80]
    assert max(map(cell_len, Text.from_ansi(shown[80]).plain.splitlines())) <= 80


def test_names_with_markup_are_shown_as_they_are(kdsearch: Run, store: Store, filled: str) -> None:
    study = studies.find_study(store.engine, "opinions")
    assert study.name in kdsearch("study", "list", storage=filled).out
    missing = kdsearch("study", "show", "[bold]x[/bold]", storage=filled)
    assert missing.code == 3
    assert "[bold]x[/bold]" in missing.err


def test_reading_loads_no_torch_and_no_optuna(filled: str, environment: dict[str, str]) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['kdsearch', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('kdsearch', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print([m for m in ('torch', 'transformers', 'optuna') if m in sys.modules], file=sys.stderr)\n"
    )
    env = {**environment, "KDSEARCH_STORAGE": filled}
    for command in (
        "pareto opinions",
        "best opinions",
        "trial list opinions",
        "study list",
        "study show opinions",
    ):
        ended = subprocess.run(
            [sys.executable, "-c", code, *command.split()],
            capture_output=True,
            text=True,
            env=env,
            timeout=300,
        )
        assert ended.stderr.splitlines()[-1] == "[]", command


def test_a_reader_that_goes_away_is_no_error(filled: str, environment: dict[str, str]) -> None:
    env = {**environment, "KDSEARCH_STORAGE": filled}
    command = [sys.executable, "-m", "kdsearch", "trial", "list", "opinions"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        said = child.stderr.read().decode()
        assert child.wait(timeout=120) == 0
    assert "Traceback" not in said
    assert "Broken" not in said


def test_two_parameters_of_one_name_are_told_apart(store: Store, filled: str) -> None:
    row = reads.trial(store.engine, studies.find_study(store.engine, "opinions").id, 0)
    params = {"joint_sum.learning_rate": 5e-5, "joint_sum.lambda": 0.5, "learning_rate": 1e-3}
    shown = answers.params_text(replace(row, params=params))
    assert shown == "joint_sum.learning_rate 5e-05, lambda 0.5, learning_rate 0.001"


def test_the_accuracy_of_a_teacher_trained_beside_is_said_once(store: Store, filled: str) -> None:
    study = reads.study(store.engine, "opinions")
    row = reads.trial(store.engine, study.id, 1)
    shown = trial._human(replace(study, quality_name="accuracy"), row, None, Story([], [], [], []))
    line = next(str(part) for part in shown if "trained beside it" in str(part))
    assert line.count("accuracy") == 1
