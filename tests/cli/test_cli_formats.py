"""`--format` everywhere: one word that chooses between people, programs, tables and bare names."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kdsearch.cli import errors, output, predict
from kdsearch.cli.options import Options
from kdsearch.export.tables import Row

Run = Callable[..., Any]


def table(answer: Any) -> list[dict[str, str]]:
    assert answer.code == 0, answer.err
    return list(csv.DictReader(io.StringIO(answer.out)))


@pytest.mark.parametrize(
    "command", [("trial", "list", "opinions"), ("pareto", "opinions"), ("study", "list")]
)
def test_json_and_quiet_are_short_for_a_format(inside: Run, filled: str, command: tuple[str, ...]) -> None:
    assert (
        inside(*command, "--format", "json", storage=filled).out
        == inside(*command, "--json", storage=filled).out
    )
    assert (
        inside(*command, "--format=quiet", storage=filled).out == inside(*command, "-q", storage=filled).out
    )


def test_trials_as_csv_have_a_column_for_each_value_that_any_has(inside: Run, filled: str) -> None:
    rows = table(inside("trial", "list", "opinions", "--format", "csv", storage=filled))
    assert [row["trial"] for row in rows] == list("0123456")
    assert rows[1]["params.textcnn.filters"] == "128"
    assert rows[1]["params.textcnn.kernel_sizes"] == "[2, 3, 4]"
    assert rows[1]["recall.spam"] == "0.95"
    assert rows[1]["on_front"] == "true"
    assert rows[2]["params.textcnn.filters"] == ""
    assert rows[6]["quality"] == ""
    assert "recall" not in rows[0]  # absent in some rows, an object in others: never a column itself


def test_the_front_as_csv_is_the_front(inside: Run, filled: str) -> None:
    def numbers(*more: str) -> list[str]:
        return [
            r["trial"] for r in table(inside("pareto", "opinions", *more, "--format=csv", storage=filled))
        ]

    assert numbers() == ["0", "1", "2"]
    assert numbers("--all") == ["0", "1", "2", "3"]
    assert numbers("--within", "latency_ms=2") == ["0", "2"]


def test_studies_as_csv(inside: Run, filled: str) -> None:
    (row,) = table(inside("study", "list", "--format", "csv", storage=filled))
    assert (row["study"], row["trials.complete"], row["budget.trials"]) == ("opinions", "4", "8")


def test_an_answer_that_is_no_list_is_one_line(inside: Run, filled: str) -> None:
    (row,) = table(inside("best", "opinions", "--format", "csv", storage=filled))
    assert (row["trial"], row["teacher.latency_ms"]) == ("1", "25.0")


def test_an_empty_list_as_csv_is_empty_and_says_what_next(inside: Run) -> None:
    answer = inside("study", "list", "--format", "csv")
    assert (answer.code, answer.out) == (0, "")
    assert "kdsearch run study.yaml" in answer.err


@pytest.mark.parametrize("asked", [("--format", "json"), ("--format=json",), ("--json",)])
def test_errors_are_json_too(inside: Run, asked: tuple[str, ...]) -> None:
    assert inside("best", "nobody", *asked).error(3)["code"] == "not_found"
    assert inside("best", "nobody", "--wihtin", *asked).error(2)["code"] == "usage"


def test_two_formats_at_once_are_a_mistake(inside: Run, filled: str) -> None:
    answer = inside("pareto", "opinions", "--format", "csv", "-q", storage=filled)
    assert answer.code == 2
    assert "--format csv and --quiet exclude each other" in answer.err
    assert inside("study", "list", "--format", "xml").code == 2


def test_a_format_before_the_command_holds_unless_the_command_has_one(inside: Run, filled: str) -> None:
    assert inside("--format", "quiet", "study", "list", storage=filled).out == "opinions\n"
    assert inside("--json", "study", "list", "-q", storage=filled).out == "opinions\n"


def test_what_counts_as_asking_for_json() -> None:
    assert errors.wants_json(["best", "--format", "json"])
    assert not errors.wants_json(["best", "json", "--format", "csv"])


def test_predictions_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    said = SimpleNamespace(label="spam", probability=0.75)
    predictor: Any = SimpleNamespace(predict=lambda texts: [said for _ in texts])
    rows = [Row("free, prize", {"text": "free, prize"})]
    predict._answer(Options(form="csv"), predictor, rows, as_table=False)
    assert capsys.readouterr().out == 'text,prediction,probability\n"free, prize",spam,0.75\n'


def test_a_table_of_nested_values() -> None:
    rows = [{"a": 1, "b": None}, {"a": 2, "b": {"c": [1, 2], "d": float("nan")}, "e": {}}]
    assert output.as_table(rows) == 'a,b.c,b.d,e\n1,,,\n2,"[1, 2]",,'
