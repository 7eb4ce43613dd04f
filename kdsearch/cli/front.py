"""`kdsearch pareto` and `kdsearch best`: the front, and the student to deploy."""

from __future__ import annotations

from typing import Annotated

import typer

from kdsearch.cli import answers, completing, output
from kdsearch.cli import within as ceilings
from kdsearch.cli.options import Options
from kdsearch.cli.within import WithinOption

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="The study's name.",
        show_default=False,
        autocompletion=completing.study_names,
    ),
]


def _front(options: Options, study: str, within: list[str] | None) -> answers.Front:
    asked = ceilings.parse(within)
    with options.reading() as store:
        from kdsearch.store import reads

        row = reads.study(store.engine, study)
        return answers.Front.read(store.engine, row, asked)


def pareto(
    options: Options,
    study: StudyArgument,
    within: WithinOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every complete trial; a star marks the front.")
    ] = False,
) -> None:
    """Show the Pareto front: quality against latency.

    Ceilings are applied first, then the front is taken of what remains. Once the study is done, with
    intervals, and what is a tie.

    Example: kdsearch pareto sms-spam --within latency_ms=2
    """
    front = _front(options, study, within)
    members = front.members
    show = members or (everything and ceilings.deployable(front.rows))
    data = front.data()
    listed = [trial for trial in data["trials"] if trial["on_front"] or (everything and trial["quality"])]
    output.show(
        options,
        "pareto",
        data,
        human=lambda: front.human(everything=everything) if show else (),
        ids=(row.number for row in members),
        rows=listed,
    )
    if options.json:
        return
    if not members:
        _say_why_empty(options, front)
    else:
        output.say(f"export the best: kdsearch export {study} --to DIR", options=options)


def _say_why_empty(options: Options, front: answers.Front) -> None:
    name = front.study.name
    if ceilings.deployable(front.rows):
        output.say(
            f"nothing within {front.within}; without the ceiling: kdsearch pareto {name}", options=options
        )
    else:
        why, hint = ceilings.nothing_deployable(front.rows, name)
        output.say(f"{why}; {hint}", options=options)


def best(options: Options, study: StudyArgument, within: WithinOption = None) -> None:
    """Show the best student within a budget.

    Ceilings are applied first; then the best quality wins, and of equals the faster one. Where finalists
    were trained with further seeds, their mean counts.
    Exit code 6 if nothing lies within them.

    Example: kdsearch best sms-spam --within latency_ms=5
    """
    front = _front(options, study, within)
    row = ceilings.best_of(front.rows, front.within, study=study, standings=front.standings.values())
    on_front = row.number in {member.number for member in front.members}
    data = {
        "study": study,
        "quality": front.study.quality_name,
        "latency": front.study.latency_name,
        "teacher": answers.teacher_data(front.study),
        **front.trial(row, on_front=on_front),
    }
    output.show(
        options,
        "best",
        data,
        human=lambda: answers.trials(front.study, [row], standings=front.standings),
        ids=[row.number],
    )
    if not options.json:
        output.say(f"export it: kdsearch export {study} --trial {row.number} --to DIR", options=options)
