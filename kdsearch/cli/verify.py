"""`kdsearch verify`: an exported folder is, byte for byte and answer for answer, what was exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import output
from kdsearch.cli.options import Options
from kdsearch.core.errors import NotFoundError

if TYPE_CHECKING:
    from rich.table import Table

    from kdsearch.export.manifest import Evaluation, Manifest
    from kdsearch.export.recheck import Check


def verify(
    options: Options,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What `kdsearch export` made.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="Also score it on a labelled csv, tsv, jsonl or parquet."
        ),
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="NAME", help="Column of the text.")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="Column of the label.")] = "label",
) -> None:
    """Check that an exported student is what was exported, anywhere.

    Without the study's database: every file's bytes, the answers to example_inputs.json by each graph and by
    the weights, and that a text's logits do not depend on its batch. No code that lies in the folder is run.
    Exit code 7 names the file or the answer that differs.

    Example: kdsearch verify student

    Example: kdsearch verify student --data labelled.csv --text message
    """
    if data is not None and not data.is_file():
        raise NotFoundError(f"{data} does not exist", hint="check the path")
    from kdsearch.export.manifest import read_manifest
    from kdsearch.export.recheck import evaluate_file, verify_folder

    manifest = read_manifest(folder)
    checks = list(_told(options, verify_folder(folder)))
    scored = {} if data is None else evaluate_file(folder, data, text=text, label=label)
    answer = {
        "dir": str(folder),
        "study": manifest.study,
        "trial": manifest.trial,
        "checks": [asdict(check) for check in checks],
        "data": {name: found.to_json() for name, found in scored.items()},
    }
    output.show(options, "verify", answer, human=lambda: _human(manifest, scored), ids=[str(folder)])


def _told(options: Options, checks: Iterable[Check]) -> Iterator[Check]:
    for check in checks:
        output.say(f"ok  {check.name}: {check.detail}", options=options)
        yield check


def _human(manifest: Manifest, scored: dict[str, Evaluation]) -> Iterable[Any]:
    yield f"verified: trial {manifest.trial} of {manifest.study} ({manifest.student})"
    if scored:
        yield _table(manifest, scored)


def _table(manifest: Manifest, scored: dict[str, Evaluation]) -> Table:
    objective = manifest.metrics.objective
    table = output.table("on", objective, "95 %", "accuracy", "macro F1", "rows")
    pools = {"validation, as exported": manifest.metrics.validation, **scored}
    for name, found in pools.items():
        low, high = found.interval
        scores = found.scores
        figures = (f"{scores.quality:.4f}", f"{low:.4f} to {high:.4f}")
        table.add_row(name, *figures, f"{scores.accuracy:.4f}", f"{scores.macro_f1:.4f}", str(found.num_rows))
    return table
