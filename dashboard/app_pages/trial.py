"""The Trial page: one trial, what it is worth, what happened to it, where it goes wrong."""

from __future__ import annotations

import streamlit as st

from dashboard import cached, frame, story, wording
from dashboard.app_pages.parts import mistakes
from dashboard.app_pages.parts.metrics import ask_metric
from dashboard.app_pages.parts.variation import variation_box
from dashboard.figures import curves, latencies
from dashboard.figures.curves import Curve
from dashboard.figures.palette import CHART_CONFIG
from dashboard.progress import front_of
from dashboard.queries.studies import Snapshot
from dashboard.story import Story
from kdsearch.core.records import Latency
from kdsearch.store.reads import StudyRow

NUMBERS = {"size (MB)": st.column_config.NumberColumn(format="%.3f")}
TIMES = {name: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss") for name in ("when", "from")}


def show() -> None:
    """Draw the page."""
    frame.page("Trial", _draw)


def _draw(snapshot: Snapshot) -> None:
    number = _pick(snapshot)
    if number is None:
        return
    told = cached.load_story(snapshot, number)
    _show_head(snapshot, told)
    chart, beside = st.columns([3, 2])
    with chart:
        _show_curve(snapshot.study, told)
    with beside:
        st.subheader("Parameters")
        rows = story.params_rows(told.trial)
        st.dataframe(rows, hide_index=True, height="content", alt="The trial's parameters.")
        st.caption(f"Chosen by: {wording.plain(story.origin(told.trial))}")
        variation_box(snapshot.study, told.trial.number, told.trial.params)
    _show_history(told)
    mistakes.show(snapshot.study, told)
    _show_latency(snapshot.study, told)
    _show_leftovers(snapshot.study, told)


def _pick(snapshot: Snapshot) -> int | None:
    asked = frame.picked_trial()
    left, _ = st.columns([1, 3])
    with left:
        number = frame.pick_trial(snapshot)
    if number is not None:
        return number
    if not len(snapshot.trials):
        st.info(f"No trials yet. A worker makes them: `kdsearch worker start --study {snapshot.study.name}`")
        return None
    last = int(snapshot.trials.number[-1])
    if asked is not None and asked > last:
        st.warning(f"The study has no trial {asked}; its last one is {last}.")
    front = front_of(snapshot.trials, snapshot.study.latency_name)
    st.info("Type a trial's number, or take one of the front:" if front else "Type a trial's number.")
    for place in reversed(front[-5:]):
        words = f"Trial {snapshot.trials.number[place]}: {snapshot.trials.student[place]}, "
        words += f"{snapshot.trials.scheme[place]}, {snapshot.trials.quality[place]:.4f}"
        frame.link_to_trial(snapshot.study.name, int(snapshot.trials.number[place]), words)
    return None


# ---------------------------------------------------------------- what it is worth


def _show_head(snapshot: Snapshot, told: Story) -> None:
    trial, study = told.trial, snapshot.study
    st.subheader(f"Trial {trial.number}: {trial.student}, {trial.scheme}")
    st.caption(wording.plain(_state(snapshot, told)))
    if (why := story.ending(told)) is not None:
        st.warning(wording.plain(why), icon=":material/flag:")
    teacher = study.teacher
    teacher_ms = teacher.latency.at(study.latency_name) if teacher and teacher.latency else None
    teacher_mb = teacher.size_mb if teacher else None
    faster, smaller = wording.times(teacher_ms, trial.latency_ms), wording.times(teacher_mb, trial.size_mb)
    quality = trial.quality if trial.quality is not None else story.best_so_far(told)
    against = None if teacher is None or quality is None else quality - teacher.quality
    cells = [
        (f"Quality ({study.quality_name})", wording.share(quality), _beside(against, trial.quality is None)),
        (_percentile(study), wording.ms(trial.latency_ms), faster and f"{faster} faster than the teacher"),
        ("Size", wording.mb(trial.size_mb), smaller and f"{smaller} smaller"),
        _epochs(told),
        ("Training took", wording.duration(trial.train_seconds), None),
    ]
    for column, (label, value, delta) in zip(st.columns(len(cells)), cells, strict=True):
        column.metric(
            label, value, delta or None, delta_color="off", delta_arrow="off", border=True, height="stretch"
        )


def _percentile(study: StudyRow) -> str:
    return f"Latency ({study.latency_name.removesuffix('_ms')})"


def _beside(against: float | None, so_far: bool) -> str | None:
    words = None if against is None else f"{wording.points(against)} against the teacher"
    return f"{wording.points(against)} so far" if words and so_far else words


def _epochs(told: Story) -> tuple[str, str, None]:
    trial = told.trial
    if trial.best_epoch is None:
        return "Epochs run", str(trial.epochs_run or 0), None
    return "Epoch kept", f"{trial.best_epoch} of {trial.epochs_run}", None


def _state(snapshot: Snapshot, told: Story) -> str:
    trial, standing = told.trial, told.standing
    said: list[str] = [trial.state]
    if trial.state == "complete":
        front = {
            int(snapshot.trials.number[i]) for i in front_of(snapshot.trials, snapshot.study.latency_name)
        }
        said.append(
            "over a limit" if not trial.feasible else "front" if trial.number in front else "dominated"
        )
    if standing is not None:
        seeds = wording.plural(len(standing.seeds), "training")
        said.append(
            f"mean {standing.quality:.4f}, 95 %: {standing.low:.4f} to {standing.high:.4f} over {seeds}: "
            f"{standing.verdict} ({standing.on_front:.0%} of the draws on the front)"
        )
    if trial.worker:
        said.append(f"last worker {trial.worker}")
    return " · ".join(said)


# ---------------------------------------------------------------- how it learned


def _show_curve(study: StudyRow, told: Story) -> None:
    st.subheader("Learning curve")
    if not told.epochs:
        st.info("No epoch has been recorded.")
        return
    metric, title = ask_metric(study)
    curve = Curve(f"trial {told.trial.number}", told.epochs, told.trial.best_epoch)
    figure = curves.learning(
        [curve],
        metric=metric,
        title=title,
        teacher=study.teacher.scores if study.teacher else None,
        rungs=story.rungs(study),
        decisions=told.own_decisions,
        ink=frame.ink(),
    )
    words = f"{title} on the validation pool after each epoch, with the teacher's as a dotted line."
    st.plotly_chart(figure, key="curve", config=CHART_CONFIG, alt=words)
    if told.trial.best_epoch is not None:
        st.caption("The large mark is the epoch that was kept.")
    with st.expander("Losses"):
        words = "Each weighted term of the training loss after each epoch."
        st.plotly_chart(curves.losses(told.epochs), key="losses", config=CHART_CONFIG, alt=words)


# ---------------------------------------------------------------- what happened to it


def _show_history(told: Story) -> None:
    st.subheader("What happened to it")
    if told.decisions:
        rows = story.decision_rows(told.decisions)
        st.dataframe(
            rows, hide_index=True, column_config=TIMES, alt="What was decided of the trial, and why."
        )
    else:
        st.caption("Nothing was decided about it on the way.")
    if told.attempts:
        rows = story.attempt_rows(told.attempts)
        st.dataframe(rows, hide_index=True, column_config=TIMES, alt="Workers that had the trial.")
    for row in told.attempts:
        if row.traceback:
            with st.expander(f"Traceback of attempt {row.attempt}, {wording.plain(row.worker)}"):
                st.code(row.traceback, language=None)
    failure = told.trial.failure
    if failure is not None and failure.traceback and not any(row.traceback for row in told.attempts):
        with st.expander("Traceback"):
            st.code(failure.traceback, language=None)


# ---------------------------------------------------------------- latency


def _show_latency(study: StudyRow, told: Story) -> None:
    latency = told.trial.latency
    st.subheader("Latency")
    if latency is None:
        st.info("It was not measured.")
        return
    chart, beside = st.columns([3, 2])
    drawn = {f"trial {told.trial.number}": latency}
    if study.teacher is not None and study.teacher.latency is not None:
        drawn["teacher"] = study.teacher.latency
    words = "Share of the queries that were answered within so many milliseconds, with p50, p90 and p99."
    figure = latencies.spread(drawn, marked=True)
    chart.plotly_chart(figure, key="latency", config=CHART_CONFIG, alt=words)
    with beside:
        rows = _latency_rows(latency)
        st.dataframe(rows, hide_index=True, height="content", alt="The latency's figures and protocol.")
        if latency.noisy:
            st.warning("Something else may have used the machine meanwhile: the figure is noisy.")
        if not latency.quantiles_ms:
            st.caption("Of this trial three percentiles were recorded, not the whole distribution.")


def _latency_rows(latency: Latency) -> list[dict[str, str]]:
    profile = latency.profile
    cells = {
        "p50": wording.ms(latency.p50_ms),
        "p90": wording.ms(latency.p90_ms),
        "p99": wording.ms(latency.p99_ms),
        "mean": wording.ms(latency.mean_ms),
        "tokenisation, p50, not included": wording.ms(latency.tokenize_p50_ms),
        "queries": f"{latency.num_queries:,} in {latency.seconds:.1f} s",
        "parameters": wording.count(latency.num_params),
        "device": f"{profile.device}: {profile.device_model}",
        "runtime": f"{profile.runtime}, threads: {profile.threads}, batch: {profile.batch_size}",
        "texts": profile.length_policy,
    }
    return [{"figure": name, "value": value} for name, value in cells.items()]


# ---------------------------------------------------------------- what it left


def _show_leftovers(study: StudyRow, told: Story) -> None:
    if told.repeats:
        st.subheader("Trained again")
        rows = story.repeat_rows(study, told.trial, told.repeats)
        config = {study.quality_name: st.column_config.NumberColumn(format="%.4f")}
        st.dataframe(rows, hide_index=True, column_config=config, width="content", alt="Quality by seed.")
    st.subheader("Commands and artifacts")
    for command in story.commands(study, told.trial):
        st.code(command, language="bash")
    artifacts = story.artifact_rows(told)
    if artifacts:
        st.dataframe(artifacts, hide_index=True, column_config=NUMBERS, alt="Stored files by their hash.")


if __name__ == "__main__":
    show()
