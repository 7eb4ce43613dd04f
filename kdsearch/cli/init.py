"""`kdsearch init`: a study file to begin with, on a sample of texts or on a person's own."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from kdsearch.cli import output
from kdsearch.cli.options import Options
from kdsearch.cli.templates import (
    HUB,
    TEMPLATES,
    Sources,
    chinese_opinions,
    english_opinions,
    study_file,
)
from kdsearch.core.errors import ConflictError, UsageError

FILE = "study.yaml"
TRAIN, VALIDATION = "data/train.csv", "data/validation.csv"
SAMPLE_ROWS = {TRAIN: (1600, 1), VALIDATION: (500, 2)}
"""Rows and seed."""
HELD_OUT = 0.2
"""Share of a file that becomes the validation pool, where no other is given."""
Pools: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]
"""Texts with their labels, by the file that holds them."""


FolderArgument = Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to.", file_okay=False)]
TemplateOption = Annotated[
    Literal["csv", "hf", "zh"],
    typer.Option("--template", help="Texts in files, a data set of the Hub, or Chinese texts in files."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Your texts: csv, tsv, jsonl or parquet. Columns are recognised; without --validation a fifth "
        "of the rows is held out.",
    ),
]
ValidationOption = Annotated[
    Path | None,
    typer.Option("--validation", metavar="FILE", exists=True, dir_okay=False, help="Its validation pool."),
]


def init(
    options: Options,
    folder: FolderArgument = Path(),
    template: TemplateOption = "csv",
    data: DataOption = None,
    validation: ValidationOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The study's name. [default: the folder's]")
    ] = None,
) -> None:
    """Write a study file to begin with, and a sample of texts.

    Nothing that is there is overwritten. Without --data the sample makes a study that runs at once, in
    minutes and without a network.

    Example: kdsearch init my-study --data reviews.csv
    """
    pools, sources = _pools(folder, template, data, validation)
    called = _name(name or folder.resolve().name)
    file = folder / FILE
    sample = data is None and template != "hf"
    text = study_file(TEMPLATES[template], called, sources, file=shlex.quote(str(file)), sample=sample)
    _write(folder, text, pools)
    _show(options, called, file, pools, sources if data is not None else None)


def _pools(folder: Path, template: str, data: Path | None, validation: Path | None) -> tuple[Pools, Sources]:
    """The files of texts to write, and where the study file finds its pools."""
    if data is None and validation is not None:
        raise UsageError("--validation belongs to --data", hint="kdsearch init --data FILE --validation FILE")
    if data is not None and template == "hf":
        raise UsageError("the template hf reads the Hub, --data a file", hint="leave one of them out")
    if data is not None:
        return _own(folder, data, validation)
    if template == "hf":
        return {}, HUB
    opinions = chinese_opinions if template == "zh" else english_opinions
    pools = {path: list(opinions(rows, seed)) for path, (rows, seed) in SAMPLE_ROWS.items()}
    return pools, Sources(TRAIN, VALIDATION)


def _own(folder: Path, data: Path, validation: Path | None) -> tuple[Pools, Sources]:
    """The columns of somebody's file, and where its pools are; a part is held out where none is given."""
    from kdsearch.core.specdata import SourceSpec
    from kdsearch.data import recognise
    from kdsearch.data.readers import read_rows

    found = recognise.columns(data)
    label = str(found.label)
    if validation is not None:
        return {}, Sources(_relative(data, folder), _relative(validation, folder), found.text, label)
    rows = read_rows(
        SourceSpec(path=str(data.resolve())), base=folder, text=found.text, label=label, split="train"
    )
    pairs = [(text, label) for text, label in zip(rows.texts, rows.labels, strict=True) if label is not None]
    chance = random.Random(f"{FILE}/{len(pairs)}")
    held_out = [chance.random() < HELD_OUT for _ in pairs]
    parts = {TRAIN: False, VALIDATION: True}
    pools = {
        path: [pair for pair, out in zip(pairs, held_out, strict=True) if out is part]
        for path, part in parts.items()
    }
    return pools, Sources(TRAIN, VALIDATION)


def _relative(file: Path, folder: Path) -> str:
    """As the study file names it: paths there start at its own folder."""
    return os.path.relpath(file.resolve(), folder.resolve())


def _name(text: str) -> str:
    """A study's name out of anything."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]
    return plain or "study"


def _write(folder: Path, study: str, pools: Pools) -> None:
    taken = [str(folder / path) for path in (FILE, *pools) if (folder / path).exists()]
    if taken:
        raise ConflictError(
            f"{', '.join(taken)} exists already and is left alone", hint="another folder: kdsearch init DIR"
        )
    try:
        for path, pairs in pools.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("x", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("text", "label"))
                writer.writerows(pairs)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / FILE).open("x", encoding="utf-8") as file:
            file.write(study)
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="another folder: kdsearch init DIR"
        ) from None


def _show(options: Options, name: str, file: Path, pools: Pools, sources: Sources | None) -> None:
    paths = [str(file), *(str(file.parent / path) for path in pools)]
    quoted = shlex.quote(str(file))
    data = {"study": name, "files": paths, "next": f"kdsearch run {quoted}"}
    output.show(options, "init", data, human=lambda: paths, ids=paths)
    if options.json:
        return
    if sources is not None and not pools:
        output.say(f"texts are in column {sources.text!r}, labels in {sources.label!r}", options=options)
    if sources is not None and pools:
        output.say(f"{HELD_OUT:.0%} of the rows are held out as {VALIDATION}", options=options)
    output.say(f"what it costs: kdsearch study plan {quoted}", options=options)
    output.say(f"run it: kdsearch run {quoted}", options=options)
