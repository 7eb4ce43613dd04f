"""Requests: what people asked for on a page, carried out by a worker between trials and while it waits.

The lease is kept alive meanwhile, so that what a worker does not end is taken again by another one.
What cannot be done fails with a sentence for whoever asked; it never ends the worker.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from kdsearch.core.errors import (
    KdsearchError,
    LeaseLostError,
    NotFoundError,
    StorageError,
    UsageError,
    VerificationError,
)
from kdsearch.search.enqueueing import enqueue
from kdsearch.store import controls, requests
from kdsearch.store.requests import RequestKind, RequestLease
from kdsearch.worker.context import Stopped, WorkerContext
from kdsearch.worker.delivery import Delivery, is_away
from kdsearch.worker.pulse import Pulse

Result = dict[str, Any]

log = structlog.get_logger()


def zipped(folder: Path, name: str) -> Path:
    """A zip file beside a folder that holds it under another name."""
    target = folder.with_name(f"{name}.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, Path(name) / path.relative_to(folder))
    return target


class Requests:
    """Carries out the requests of one study."""

    def __init__(self, context: WorkerContext, pulse: Pulse, delivery: Delivery) -> None:
        self._context, self._pulse, self._delivery = context, pulse, delivery
        self._engine, self._study = context.store.engine, context.study
        self._ways: Mapping[RequestKind, Callable[[RequestLease], Result]] = {
            "export": self._export,
            "pause": lambda lease: {"changed": controls.pause(self._engine, self._study.name)},
            "resume": lambda lease: {"changed": controls.resume(self._engine, self._study.name)},
            "enqueue": self._enqueue,
        }

    def carry_out(self) -> None:
        """Everything that is asked for now, one after another. Raises Stopped where it is to let go."""
        options = self._context.options
        while not self._context.should_stop():
            lease = self._delivery.patiently(
                lambda: requests.take(self._engine, self._study.id, self._context.worker_id, options.lease_s)
            )
            if lease is None:
                return
            log.info("carrying out a request", request=lease.id, kind=lease.kind)
            with suppress(LeaseLostError), self._pulse.carrying_out(lease):
                self._carry_out(lease)

    def _carry_out(self, lease: RequestLease) -> None:
        try:
            result = self._delivery.patiently(lambda: self._ways[lease.kind](lease))
        except Stopped:
            requests.give_back(self._engine, lease)
            raise
        except LeaseLostError:
            log.warning("another worker carries this request out now", request=lease.id)
        except Exception as error:  # whatever it was, whoever asked is told
            if isinstance(error, StorageError) and is_away(error):
                requests.give_back(self._engine, lease)
                raise
            self._fail(lease, error)
        else:
            self._delivery.patiently(lambda: requests.finish(self._engine, lease, result))

    def _fail(self, lease: RequestLease, error: Exception) -> None:
        if isinstance(error, KdsearchError):
            why = f"{error.what} ({error.hint})" if error.hint else error.what
            log.warning("a request cannot be carried out", request=lease.id, why=why)
        else:
            why = f"unexpected {type(error).__name__}: {error}"
            log.exception("a request broke", request=lease.id)
        self._delivery.patiently(lambda: requests.fail(self._engine, lease, why))

    # ---------------------------------------------------------------- what can be asked for

    def _enqueue(self, lease: RequestLease) -> Result:
        params = lease.arguments.get("params")
        if not isinstance(params, dict):
            raise UsageError(
                "nothing was said to be tried", hint='for example: {"params": {"student": "bag"}}'
            )
        return {"trial": enqueue(self._context.store, self._study.name, params)}

    def _export(self, lease: RequestLease) -> Result:
        """A zip file in the artifact store. Exporting takes the host lock itself, where it measures."""
        export, name = self._context.options.export, self._study.name
        if export is None:
            raise NotFoundError("this worker cannot export", hint=f"kdsearch worker start --study {name}")
        with TemporaryDirectory(prefix="kdsearch-asked-") as place:
            folder = Path(place) / "student"
            try:
                number = export(self._context.store, name, lease.arguments, folder, self._saying(lease))
            except VerificationError as error:  # where it was written is gone in a moment
                hint = f"to look at what was written: kdsearch export {name} --to DIR"
                raise VerificationError(error.what, hint=hint) from error
            archive = zipped(folder, f"{name}-trial{number}")
            size = archive.stat().st_size
            artifact = self._context.store.blobs.put(archive)
        return {"artifact": artifact, "bytes": size, "name": archive.name, "trial": number}

    def _saying(self, lease: RequestLease) -> Callable[[str], None]:
        """Puts on record how far it is. Raises Stopped where the worker is to let go, LeaseLostError."""

        def say(text: str) -> None:
            if self._context.should_stop():  # asking is a step
                raise Stopped
            with suppress(StorageError):
                requests.progress(self._engine, lease, text)

        return say
