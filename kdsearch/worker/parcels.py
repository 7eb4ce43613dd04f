"""Parcels: everything that the holder of a trial's lease puts on record, as a value that fits into a file.

The fence of the lease is in each of them: whoever delivers it, and however late, what the database takes is
decided by who holds the trial by then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Engine

from kdsearch.core.records import Decision, EpochReport, Failure, Latency, Scores, TrialConfig, TrialResult
from kdsearch.store import leases
from kdsearch.store.leases import Lease

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One thing to put on record, with the stored bytes that it speaks of."""

    kind: str
    lease: Lease
    values: Values = field(default_factory=dict)
    """As in JSON."""
    blobs: tuple[str, ...] = ()
    """To be in the artifact store before it is on record."""
    removes: tuple[str, ...] = ()
    """What nobody needs once it is on record."""

    def record(self, engine: Engine) -> None:
        """Put it on record. LeaseLostError where the trial is somebody else's by now."""
        RECORD[self.kind](engine, self.lease, self.values)

    def to_text(self) -> str:
        """JSON; `from_text` is its inverse."""
        return json.dumps(
            {
                "kind": self.kind,
                "lease": _lease_to_json(self.lease),
                "values": self.values,
                "blobs": self.blobs,
                "removes": self.removes,
            },
            default=_number,
        )

    @classmethod
    def from_text(cls, text: str) -> Parcel:
        """From what `to_text` gave. ValueError, KeyError or TypeError where it is none."""
        data = json.loads(text)
        return cls(
            kind=data["kind"],
            lease=_lease_from_json(data["lease"]),
            values=data["values"],
            blobs=tuple(data["blobs"]),
            removes=tuple(data["removes"]),
        )


def _number(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()


def _lease_to_json(lease: Lease) -> dict[str, Any]:
    plain = {f.name: getattr(lease, f.name) for f in fields(lease) if f.name not in ("config", "latency")}
    return {**plain, "config": lease.config.to_json()}


def _lease_from_json(data: Mapping[str, Any]) -> Lease:
    return Lease(**{**data, "config": TrialConfig.from_json(data["config"])})


def _decision(values: Values) -> Decision | None:
    found = values.get("decision")
    return None if found is None else Decision(**found)


def _certain(values: Values) -> Decision:
    return Decision(**values["decision"])


def _scores(found: Mapping[str, Any] | None) -> Scores | None:
    return None if found is None else Scores(**found)


def _epoch(engine: Engine, lease: Lease, values: Values) -> None:
    report = EpochReport(**{**values["report"], "scores": _scores(values["report"]["scores"])})
    leases.record_epoch(engine, lease, report, values["checkpoint"], values.get("previous"))


def _checkpoint(engine: Engine, lease: Lease, values: Values) -> None:
    kept = {"epochs_run": values["epochs_run"], "previous": values.get("previous")}
    leases.record_checkpoint(engine, lease, values["checkpoint"], **kept)


def _latency(engine: Engine, lease: Lease, values: Values) -> None:
    leases.record_latency(engine, lease, Latency.from_json(values["latency"]))


def _complete(engine: Engine, lease: Lease, values: Values) -> None:
    found = values["result"]
    result = TrialResult(
        **{**found, "scores": Scores(**found["scores"]), "teacher": _scores(found["teacher"])}
    )
    leases.finish_complete(engine, lease, result, values["constraints"])


def _rejected(engine: Engine, lease: Lease, values: Values) -> None:
    leases.finish_rejected(engine, lease, values["constraints"], decision=_decision(values))


def _failed(engine: Engine, lease: Lease, values: Values) -> None:
    leases.finish_failed(engine, lease, Failure(**values["failure"]))


def _retry_smaller(engine: Engine, lease: Lease, values: Values) -> None:
    leases.retry_smaller(
        engine,
        lease,
        _certain(values),
        accumulate=values["accumulate"],
        traceback=values["traceback"],
    )


RECORD: Mapping[str, Callable[[Engine, Lease, Values], None]] = {
    "latency": _latency,
    "epoch": _epoch,
    "checkpoint": _checkpoint,
    "decision": lambda engine, lease, values: leases.record_decision(engine, lease, _certain(values)),
    "pause": lambda engine, lease, values: leases.pause(engine, lease, _certain(values)),
    "give_back": lambda engine, lease, values: leases.give_back(engine, lease),
    "retry_smaller": _retry_smaller,
    "complete": _complete,
    "rejected": _rejected,
    "failed": _failed,
}
"""What each kind of parcel does; the names stand in files of earlier versions, too."""
