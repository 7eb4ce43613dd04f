"""Enqueueing: what a person asks for is tried next, under a number known at once; or it is said why not."""

from __future__ import annotations

from typing import Any

import pytest

from kdsearch.core.errors import ConflictError, NotFoundError, UsageError
from kdsearch.core.spec import StudySpec
from kdsearch.core.studyfile import spec_to_json
from kdsearch.data.inputs import Inputs
from kdsearch.search import enqueueing
from kdsearch.search.asking import Search
from kdsearch.search.drawing import fixed_in
from kdsearch.search.enqueueing import enqueue, fixed_params
from kdsearch.search.known import Known
from kdsearch.search.plan import ENQUEUED, Plan
from kdsearch.store import leases, studies
from kdsearch.store.connect import Store
from kdsearch.store.optuna_storage import optuna_storage
from kdsearch.store.studies import NewStudy
from kdsearch.store.transactions import begin

SPEC = {
    "version": 1,
    "name": "queue",
    "data": {"train": "unread", "validation": "unread"},
    "teacher": {"model": "unread"},
    "students": [
        {"type": "textcnn", "filters": [64, 128], "kernel_sizes": [[2, 3], [3, 4]], "dropout": 0.1},
        {"type": "bag"},
    ],
    "schemes": [{"type": "offline", "loss": ["kl", "mse"], "temperature": {"min": 1, "max": 16}}],
    "training": {"epochs": 2, "batch_size": 32},
    "budget": {"trials": 4},
    "search": {"sampler": "random"},
}
WHOLE: dict[str, Any] = {
    "student": "textcnn",
    "textcnn.filters": 64,
    "textcnn.kernel_sizes": [2, 3],
    "scheme": "none",
}


def plan_of(**changes: Any) -> Plan:
    return Plan(StudySpec.model_validate({**SPEC, **changes}))


@pytest.fixture
def queue(store: Store) -> Search:
    """The search of a study named queue, on record."""
    plan = plan_of()
    inputs = Inputs(dataset="0" * 64, teacher=None, teacher_classifies=False)
    new = NewStudy(
        name="queue",
        optuna_name="queue",
        spec_text="",
        spec_json=spec_to_json(plan.spec),
        spec_sha256="0" * 64,
        dataset_sha256=inputs.save(store.blobs),
        data_fingerprint="2" * 64,
        artifacts_url=store.artifacts_url,
        budget=plan.spec.budget,
    )
    studies.create_study(store.engine, new)
    return Search.create(optuna_storage(store), "queue", plan)


def begin_trial(store: Store, search: Search, numbers: set[int]) -> leases.Lease:
    """What the next claim begins: an orphan, else what the search asks for."""
    study = studies.find_study(store.engine, "queue")
    orphans = search.orphans(numbers, Known())
    asked = orphans[0] if orphans else search.ask(Known())
    assert asked is not None
    with leases.study_turn(store.engine, study.id) as turn:
        return leases.insert_running(
            turn,
            study.id,
            number=asked.number,
            optuna_trial_id=asked.optuna_trial_id,
            config=asked.config,
            architecture_key="a",
            worker_id="w",
            ttl_s=60,
            origin=asked.origin,
        )


def test_what_is_asked_for_comes_before_everything_else(store: Store, queue: Search) -> None:
    number = enqueue(store, "queue", {"textcnn.filters": 128, "offline.temperature": 4})
    assert enqueue(store, "queue", {"textcnn.filters": 128, "offline.temperature": 4}) == number
    lease = begin_trial(store, queue, set())
    assert (lease.number, lease.origin) == (number, ENQUEUED)
    assert lease.config.student_params["filters"] == 128
    assert (lease.config.scheme, lease.config.scheme_params["temperature"]) == ("offline", 4.0)
    assert lease.config.scheme_params["loss"] == "kl"  # the only one beside which there is a temperature
    assert begin_trial(store, queue, {number}).origin != ENQUEUED


def test_what_was_tried_is_not_tried_again(store: Store, queue: Search) -> None:
    rate = {"learning_rate": 0.001}
    number = enqueue(store, "queue", {**WHOLE, **rate})
    lease = begin_trial(store, queue, set())
    assert lease.config.learning_rate == 0.001
    with pytest.raises(ConflictError, match=f"with these values was tried already: trial {number}") as raised:
        enqueue(store, "queue", lease.config.params)
    assert f"rerun queue {number}" in raised.value.hint
    assert enqueue(store, "queue", {**WHOLE, "learning_rate": 0.002}) > number


def test_no_more_is_enqueued_than_the_budget_holds(store: Store, queue: Search) -> None:
    for rate in (0.001, 0.002, 0.003, 0.004):
        enqueue(store, "queue", {"learning_rate": rate})
    with pytest.raises(ConflictError, match="enqueued already") as raised:
        enqueue(store, "queue", {"learning_rate": 0.0005})
    assert "extend queue --trials 1" in raised.value.hint
    study = studies.find_study(store.engine, "queue")
    with begin(store.engine) as connection:
        studies.set_state(connection, study.id, "done")
    with pytest.raises(ConflictError, match="is done"):
        enqueue(store, "queue", {"learning_rate": 0.0005})
    with pytest.raises(NotFoundError):
        enqueue(store, "quue", {})


def test_a_person_may_ask_for_what_the_search_would_not_try(store: Store, queue: Search) -> None:
    number = enqueue(store, "queue", WHOLE)
    far_too_slow = Known(latency_ms=lambda config: 1e9)
    (asked,) = queue.orphans(set(), far_too_slow)
    assert asked.number == number


@pytest.mark.parametrize(
    ("params", "says", "hints"),
    [
        ({"student": "textcn"}, "no student 'textcn'", "textcnn"),
        ({"scheme": "route"}, "no scheme 'route'", "none, offline"),
        ({"textcnn.filter": 64}, "no parameter 'textcnn.filter'", "textcnn.filters"),
        ({"filters": 64}, "no parameter 'filters'", "student"),
        ({"student": "bag", "textcnn.filters": 64}, "no parameter 'textcnn.filters'", "bag."),
        ({"textcnn.filters": 96}, "not in the study's space", "one of 64, 128"),
        ({"textcnn.filters": "many"}, 'cannot be "many"', "an integer"),
        ({"textcnn.dropout": 0.3}, "not in the study's space", "always 0.1"),
        ({"learning_rate": 0.5}, "not in the study's space", "from 0.0001 to 0.005"),
        ({"textcnn.kernel_sizes": [4, 5]}, "not in the study's space", "[2, 3], [3, 4]"),
        (
            {"offline.loss": "mse", "offline.temperature": 4},
            "exists only where `offline.loss` is kl",
            "leave",
        ),
        ({"learning_rate": {"min": 1}}, "cannot be", "a number"),
    ],
)
def test_what_the_study_cannot_try_is_refused(params: dict[str, Any], says: str, hints: str) -> None:
    with pytest.raises(UsageError) as raised:
        fixed_params(plan_of(), params, study="queue")
    assert says in raised.value.what
    assert hints in raised.value.hint


def test_values_are_kept_as_optuna_keeps_them() -> None:
    fixed = fixed_params(plan_of(), {"textcnn.kernel_sizes": "3-4", "learning_rate": 0.001}, study="queue")
    assert fixed == {"student": "textcnn", "textcnn.kernel_sizes": "3-4", "learning_rate": 0.001}
    assert enqueueing.fixed_params(plan_of(), {}, study="queue") == {}


def test_an_enqueued_trial_keeps_its_values_through_a_death(store: Store, queue: Search) -> None:
    number = enqueue(store, "queue", WHOLE)
    first = queue.orphans(set(), Known())[0]
    again = Search.open(optuna_storage(store), "queue", plan_of()).orphans(set(), Known())[0]
    assert (first.number, first.config) == (again.number, again.config)
    trial = queue._storage.get_trial(queue._trial_id(number))
    assert fixed_in(trial)["textcnn.kernel_sizes"] == "2-3"
