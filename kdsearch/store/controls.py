"""Controls: what people do to a study, a trial or a worker, by a command or through a request.

Each is one transaction that says what is in its way. Pausing is soft: nothing new begins, and what runs goes
on to its end. Stopping is hard: the study is done at once, and whoever runs one of its trials lets go at its
next beat.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from kdsearch.core.errors import ConflictError, NotFoundError, UsageError, did_you_mean
from kdsearch.store import leases
from kdsearch.store.artifacts import ArtifactStore
from kdsearch.store.connect import Store
from kdsearch.store.leftovers import reachable
from kdsearch.store.migrate import one_at_a_time
from kdsearch.store.optuna_storage import forget_optuna_study
from kdsearch.store.sql import execute
from kdsearch.store.studies import StudyRecord, StudyState, find_study
from kdsearch.store.transactions import begin, repeatable

STOPPED = "the study was stopped"


# ---------------------------------------------------------------- a study


@repeatable
def pause(engine: Engine, study_name: str) -> bool:
    """Begin nothing new in a study; trials that run go on to their end. False if it was paused already.

    Raises NotFoundError, ConflictError where it is done or could not be prepared.
    """
    return _move(engine, find_study(engine, study_name), "open", "paused")


@repeatable
def resume(engine: Engine, study_name: str) -> bool:
    """Let a paused study go on; False if it was open already. Raises as `pause` does."""
    return _move(engine, find_study(engine, study_name), "paused", "open")


def _move(engine: Engine, study: StudyRecord, before: StudyState, after: StudyState) -> bool:
    with begin(engine) as connection:
        moved = execute(connection, "move_study", study_id=study.id, before=before, after=after)
    if moved.rowcount:
        return True
    now = find_study(engine, study.name)
    if now.state == after:
        return False
    raise _not_open(now)


def _not_open(study: StudyRecord) -> ConflictError:
    if study.state == "failed":
        return ConflictError(
            f"study {study.name!r} could not be prepared: {study.error}",
            hint="mend the cause, then `kdsearch run FILE` again",
        )
    return ConflictError(
        f"study {study.name!r} is {study.state}",
        hint=f"`kdsearch study extend {study.name} --trials N` lets it go on",
    )


@repeatable
def stop(engine: Engine, study_name: str) -> list[int]:
    """End a study now: it is done, and what waits, runs or is paused is stopped; the numbers of those trials.

    Its budget is cut to the trials it has; `extend` lets it go on. Raises NotFoundError, ConflictError where
    it is done already.
    """
    study = find_study(engine, study_name)
    with leases.study_turn(engine, study.id) as connection:
        if execute(connection, "stop_study", study_id=study.id, why=STOPPED).rowcount == 0:
            raise ConflictError(
                f"study {study_name!r} is done already", hint=f"kdsearch study show {study_name}"
            )
        execute(connection, "stop_preparation", study_id=study.id)
        execute(connection, "forget_standings", study_id=study.id)
        return list(execute(connection, "stop_trials", study_id=study.id, why=STOPPED).scalars())


def extend(
    engine: Engine,
    study_name: str,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    failed: int | None = None,
) -> None:
    """Add to a study's budget; one that was done is open again.

    Raises NotFoundError, UsageError for nothing or less than nothing, ConflictError where there is no limit
    to be raised or the study could not be prepared.
    """
    asked = {"trials": trials, "epochs": epochs, "hours": hours, "gpu_hours": gpu_hours, "failed": failed}
    more = {name: value for name, value in asked.items() if value is not None}
    if not more or any(value <= 0 for value in more.values()):
        raise UsageError(
            "an extension adds something to the budget", hint="for example: --trials 20, or --hours 1.5"
        )
    study = find_study(engine, study_name)
    if study.state == "failed":
        raise _not_open(study)
    with leases.study_turn(engine, study.id) as connection:
        limits = execute(connection, "budget_limits", study_id=study.id).mappings().one()
        if unlimited := [name for name in more if limits[name] is None]:
            raise ConflictError(
                f"study {study_name!r} has no limit of {' or '.join(unlimited)}: there is nothing to extend",
                hint=f"kdsearch study show {study_name}",
            )
        execute(connection, "extend_budget", study_id=study.id, **{name: more.get(name, 0) for name in asked})
        execute(connection, "wake_study", study_id=study.id)


def delete(store: Store, study_name: str, *, artifacts: bool) -> int:
    """Delete a study, its trials and its study in Optuna; how many bytes of artifacts went with it.

    With `artifacts` also those that no other study and nothing that was cached needs. Its workers leave at
    their next beat. Raises NotFoundError.
    """
    study = find_study(store.engine, study_name)
    with one_at_a_time(store.engine):  # nobody creates a study of the same texts meanwhile
        blobs = store.of_study(study.artifacts_url).blobs
        needless = _needless(store.engine, blobs, study.id) if artifacts else {}
        with leases.study_turn(store.engine, study.id) as connection:
            execute(connection, "delete_study", study_id=study.id)
        for sha256 in needless:
            _forget_cached(store.engine, sha256)
            blobs.remove(sha256)
    forget_optuna_study(store, study.optuna_name)
    return sum(needless.values())


def freed(store: Store, study_name: str) -> int:
    """How many bytes of artifacts `delete` would take away now; NotFoundError."""
    study = find_study(store.engine, study_name)
    blobs = store.of_study(study.artifacts_url).blobs
    return sum(_needless(store.engine, blobs, study.id).values())


def _needless(engine: Engine, blobs: ArtifactStore, study_id: int) -> dict[str, int]:
    """Artifacts that are only this study's, and their sizes."""
    with begin(engine) as connection:
        own = _digests(connection, study_id, others=False)
        rest = _digests(connection, study_id, others=True)
        cached = set(execute(connection, "cached_digests").scalars())
    mine = reachable(engine, blobs, own)
    theirs = reachable(engine, blobs, rest | (cached - mine.keys()))
    return {sha256: size for sha256, size in mine.items() if sha256 not in theirs}


def _digests(connection: Connection, study_id: int, *, others: bool) -> set[str]:
    return set(execute(connection, "digests_of_study", study_id=study_id, others=others).scalars())


@repeatable
def _forget_cached(engine: Engine, sha256: str) -> None:
    with begin(engine) as connection:
        execute(connection, "forget_cached", sha256=sha256)


# ---------------------------------------------------------------- a trial


@repeatable
def retry(engine: Engine, study_name: str, number: int) -> None:
    """Let a failed trial wait again, as if no worker had ended in it; a study that was done is open again.

    It keeps its number. Optuna, which cannot take a failure back, goes on to see it as failed. Raises
    NotFoundError, ConflictError unless it has failed.
    """
    study = find_study(engine, study_name)
    with leases.study_turn(engine, study.id) as connection:
        if execute(connection, "retry_failed", study_id=study.id, number=number).rowcount == 0:
            state = _state_of(connection, study, number)
            raise ConflictError(
                f"trial {number} of study {study_name!r} is {state}: there is no failure to be tried again",
                hint=f"kdsearch trial list {study_name} --state failed",
            )
        execute(connection, "wake_study", study_id=study.id)


@repeatable
def rerun(engine: Engine, study_name: str, number: int, seeds: Sequence[int]) -> int:
    """Have a complete trial trained again with further seeds; how many trainings that are.

    A seed that it was trained with is left out. A study that was done is open again. Raises NotFoundError,
    ConflictError unless the trial is complete, UsageError without a seed.
    """
    if not seeds:
        raise UsageError("a trial is trained again with at least one seed", hint="for example: --seeds 1,2,3")
    study = find_study(engine, study_name)
    with leases.study_turn(engine, study.id) as connection:
        if (state := _state_of(connection, study, number)) != "complete":
            raise ConflictError(
                f"trial {number} of study {study_name!r} is {state}: only what is complete is trained again",
                hint=f"kdsearch trial list {study_name} --state complete",
            )
        of = {"study_id": study.id, "number": number}
        again = sum(execute(connection, "revive_repeat", **of, seed=seed).rowcount for seed in seeds)
        again += leases.insert_repeats(connection, study.id, [(number, seed) for seed in seeds])
        if again:
            execute(connection, "wake_study", study_id=study.id)
    return again


def _state_of(connection: Connection, study: StudyRecord, number: int) -> str:
    state = execute(connection, "trial_state", study_id=study.id, number=number).scalar_one_or_none()
    if state is None:
        raise NotFoundError(
            f"study {study.name!r} has no trial {number}", hint=f"kdsearch trial list {study.name}"
        )
    return str(state)


# ---------------------------------------------------------------- a worker


@repeatable
def drain(engine: Engine, worker_id: str) -> None:
    """Ask a worker to put its trial away and leave; it does at its next beat.

    Raises NotFoundError, ConflictError where it has left already.
    """
    with begin(engine) as connection:
        if execute(connection, "drain_worker", id=worker_id).rowcount:
            return
        state = execute(connection, "worker_state", id=worker_id).scalar_one_or_none()
        known = list(execute(connection, "worker_ids").scalars())
    if state is None:
        meant = did_you_mean(worker_id, known)
        raise NotFoundError(f"there is no worker {worker_id!r}", hint=meant or "kdsearch worker list")
    raise ConflictError(f"worker {worker_id} has left already", hint="kdsearch worker list")
