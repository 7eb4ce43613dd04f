"""Arms of a comparison: studies derived from a study file, each run to its end once, and what came of them.

A derived study is an ordinary one: it has a file of its own, `kdsearch run` makes it, and where it was cut
off the same command goes on with it. What is done is not done again.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML

from kdsearch.cli.options import child_environment
from kdsearch.core.blobs import get_tree
from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import NotFoundError
from kdsearch.core.studyfile import read_study
from kdsearch.data.prepared import Prepared
from kdsearch.data.tokens import TokenPool
from kdsearch.export.report import ReportRow, report
from kdsearch.store import reads
from kdsearch.store.connect import Store, open_store
from kdsearch.store.reads import StudyRow, TrialRow
from kdsearch.store.statefolder import resolve_home

FloatArray = npt.NDArray[np.float32]
Spec = dict[str, Any]
STUDIES = Path(__file__).parents[1] / "studies"
TINY_TEACHER = {"layers": 2, "hidden": 64, "heads": 2, "vocab_size": 1500}
"""Of trial runs (`--small`), whose figures mean nothing."""


@dataclass(frozen=True)
class Outcome:
    """A finished study."""

    store: Store
    study: StudyRow
    trials: tuple[TrialRow, ...]
    """The complete ones."""

    @cached_property
    def prepared(self) -> Prepared:
        """What its preparation left."""
        return Prepared.load(self.store.blobs, str(self.study.prepared))

    def pool(self, name: str) -> TokenPool:
        """One of its tokenised pools."""
        return TokenPool.load(self.store.blobs.open(self.prepared.pools[name].tokens))

    @cached_property
    def labels_N(self) -> npt.NDArray[np.int64]:  # noqa: N802
        """Of the validation pool."""
        return self.pool("validation").labels_N

    def of(self, student: str, scheme: str) -> list[TrialRow]:
        """Trials by number."""
        return [t for t in self.trials if t.student == student and t.scheme == scheme]

    def only(self, student: str, scheme: str) -> TrialRow:
        """The one trial of a study that has one of each kind."""
        (trial,) = self.of(student, scheme)
        return trial

    def logits(self, trial: TrialRow) -> FloatArray:
        """On the validation pool."""
        stored: FloatArray = np.load(self.store.blobs.open(str(trial.validation_logits)))
        return stored

    @property
    def teacher_logits(self) -> FloatArray:
        """On the validation pool."""
        stored: FloatArray = np.load(self.store.blobs.open(str(self.prepared.pools["validation"].logits)))
        return stored

    def teacher_folder(self, into: Path) -> Path:
        """The fine-tuned teacher, to be named by another study."""
        return into if into.exists() else get_tree(self.store.blobs, str(self.prepared.teacher), into)

    def best(self, student: str, scheme: str, *, first: int | None = None) -> TrialRow:
        """The best of the first so many trials."""
        return max(self.of(student, scheme)[:first], key=lambda t: (t.quality or 0.0, -t.number))

    def report(self, *, test: bool) -> list[ReportRow]:
        """As `kdsearch study report` has it."""
        trials = reads.trials(self.store.engine, self.study.id)
        return report(self.store, self.study, trials, test=test)


@dataclass(frozen=True)
class Bench:
    """Where studies are run."""

    store: Store
    folder: Path
    """Holds the derived study files."""
    workers: int

    def finished(self, spec: Spec) -> Outcome:
        """The study, run to its end; at once where that was done before."""
        path = write_study(spec, self.folder / f"{spec['name']}.yaml")
        if not self._is_done(path):
            print(f"running {spec['name']}", file=sys.stderr, flush=True)
            command = [
                sys.executable,
                "-m",
                "kdsearch",
                "run",
                str(path),
                "--workers",
                str(self.workers),
                "-q",
            ]
            subprocess.run(command, env=child_environment(self.store), stdout=subprocess.DEVNULL, check=True)
        study = reads.study(self.store.engine, spec["name"])
        complete = tuple(reads.trials(self.store.engine, study.id, "complete"))
        return Outcome(self.store, study, complete)

    def _is_done(self, path: Path) -> bool:
        file = read_study(path, env=os.environ)
        try:
            found = reads.study(self.store.engine, file.spec.name)
        except NotFoundError:
            return False
        # of a study that another file made, or with a raised budget, `run` has something to say
        same = found.spec_sha256 == file.sha256 and found.budget_trials >= file.spec.budget.trials
        return same and found.state == "done"


def arguments(description: str | None, *, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """What every driver takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--small", action="store_true", help="a trial run of minutes; its figures mean nothing"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the study file all studies are derived from, e.g. --set data.train.limit=1000",
    )
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    return parser


def changed(spec: Spec, options: argparse.Namespace) -> Spec:
    """The study file with what `--set` says; what it says is part of the studies' names."""
    changes = {
        key: YAML(typ="safe").load(value) for key, _, value in (pair.partition("=") for pair in options.set)
    }
    if not changes:
        return spec
    return derived(spec, sha256_of(changes)[:6], changes)


@contextmanager
def bench(name: str, options: argparse.Namespace) -> Iterator[Bench]:
    """The store of KDSEARCH_HOME or KDSEARCH_STORAGE, held open; trial runs have studies of their own."""
    for variable in ("KDSEARCH_DATA", "KDSEARCH_TEACHER"):
        given = os.environ.get(variable)
        if given and Path(given).is_dir():  # derived files lie elsewhere
            os.environ[variable] = str(Path(given).resolve())
    home = resolve_home(os.environ)
    folder = home / "benchmarks" / (f"{name}-small" if options.small else name)
    folder.mkdir(parents=True, exist_ok=True)
    storage, artifacts = os.environ.get("KDSEARCH_STORAGE"), os.environ.get("KDSEARCH_ARTIFACTS")
    with open_store(storage, artifacts, home=home) as store:
        yield Bench(store, folder, options.workers)


def write_study(spec: Spec, path: Path) -> Path:
    """A study file."""
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(spec, file)
    return path


def load_spec(name: str) -> Spec:
    """A study file of the repository, its ``${}`` as they stand."""
    spec: Spec = YAML(typ="safe").load((STUDIES / f"{name}.yaml").read_text())
    return spec


def derived(spec: Mapping[str, Any], suffix: str, changes: Mapping[str, Any]) -> Spec:
    """A copy under the name ``<name>-<suffix>``; keys of the changes are dotted paths, None removes one."""
    made: Spec = copy.deepcopy(dict(spec))
    made["name"] = f"{spec['name']}-{suffix}"
    for path, value in changes.items():
        *parents, last = path.split(".")
        owner = made
        for parent in parents:
            if isinstance(owner.get(parent), str):  # `train: file` is short for `train: {path: file}`
                owner[parent] = {"path": owner[parent]}
            owner = owner.setdefault(parent, {})
        if value is None:
            owner.pop(last, None)
        else:
            owner[last] = copy.deepcopy(value)
    return made


def shrunk(spec: Spec, *, rows: int = 300) -> Spec:
    """Few rows, one or two epochs and a tiny teacher of no knowledge."""
    pools = [name for name in ("train", "validation", "test", "unlabelled") if name in spec["data"]]
    changes: dict[str, Any] = {f"data.{name}.limit": rows for name in pools}
    changes["teacher.finetune"] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32, "anchors": 2}
    changes |= {"teacher.model": None, "teacher.build": TINY_TEACHER, "training.epochs": 2}
    if "pretrain" in spec["teacher"]:
        changes["teacher.pretrain"] = {"epochs": 1}
    changes |= {"latency.min_seconds": 0.05, "latency.min_queries": 20}
    return derived(spec, "small", changes)


def fixed(params: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A trial's student or scheme as a study file says it: every parameter with this one value."""
    own = {name.partition(".")[2]: value for name, value in params.items() if name.startswith(f"{kind}.")}
    # a tuple is a value, a list a choice: kernel sizes become a choice of one
    plain = {
        name: [list(value)] if isinstance(value, (tuple, list)) else value for name, value in own.items()
    }
    return {"type": kind, **plain}


def repeated(base: Spec, trial: TrialRow, name: str, seed: int, changes: Mapping[str, Any]) -> Spec:
    """The trial once more with another seed; a distilled one has the control of its parameters beside it."""
    schemes = [{"type": "none"}] if trial.scheme != "none" else []
    schemes.append(fixed(trial.params, trial.scheme))
    own = {
        "students": [fixed(trial.params, trial.student)],
        "schemes": schemes,
        "training.learning_rate": trial.params["learning_rate"],
        "training.batch_size": trial.params["batch_size"],
        "training.seed": seed,
        "budget.trials": len(schemes),
    }
    return derived(base, f"{name}-{seed}".replace("_", "-"), {**own, **changes})


def write_report(parts: Iterable[str], out: Path | None) -> None:
    """To standard output, and to a file."""
    text = "\n\n".join(parts) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
