"""The ground: a Postgres of its own, on it a tiny study whose teacher is prepared, copied per case.

The server keeps to a folder of its own and is stopped and started for real. It need not survive a power
cut (`fsync` is off), while every commit survives the server (`synchronous_commit` stays on).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import sql
from sqlalchemy import URL, make_url

from benchmarks.faults import launcher
from benchmarks.faults.cases import Environment
from benchmarks.faults.launcher import Plan
from kdsearch.store import embedded, migrate, postmaster
from kdsearch.store.connect import make_engine
from kdsearch.store.statefolder import StateFolder, read_place

STUDY = "struck"
PREPARED, UNDISTURBED = "prepared", "undisturbed"
TRIALS, EPOCHS, STEPS = 3, 3, 5
TINY = f"""\
version: 1
name: {STUDY}
data:
  train: synthetic://spam_opinions?rows=160&seed=1
  validation: synthetic://spam_opinions?rows=80&seed=2
teacher:
  build: {{layers: 1, hidden: 16, heads: 2, vocab_size: 400}}
  max_length: 24
  finetune: {{epochs: 1, learning_rate: 1e-3, batch_size: 32, anchors: 1}}
students:
  - {{type: textcnn, filters: [8], embed_dim: [8], kernel_sizes: [[2, 3]]}}
  - {{type: bag, embed_dim: [8], hidden: [8]}}
training: {{epochs: {EPOCHS}, batch_size: 32, seed: 5}}
latency: {{warmup: 2, min_queries: 10, min_seconds: 0}}
budget: {{trials: {TRIALS}, failed: 2}}
search: {{sampler: random, seed: 3}}
"""
"""{STEPS} steps an epoch."""
PATIENCE_S = 300.0
_MIGRATING = threading.Lock()
"""Alembic knows one migration at a time in a process."""
PROCESSES = multiprocessing.get_context("forkserver")
"""Forked from a process that has loaded torch and runs no thread, instead of loading it for every worker."""


def wait_for(what: str, is_so: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
    """Until it is so; AssertionError where it never is."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.02)


class Ground:
    """One server. Cases take turns on it."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.folder = folder
        self._home = folder / "server"
        self._running = running
        self._url = make_url(running.enter_context(embedded.embedded(self._home)))
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("SELECT pg_reload_conf()")
        self._prepare()

    def _connect(self, database: str | None = None) -> psycopg2.extensions.connection:
        url = self._url
        connection = psycopg2.connect(
            host=url.query["host"],
            port=url.query["port"],
            user=url.username,
            password=url.password,
            dbname=database or url.database,
            connect_timeout=5,
        )
        connection.autocommit = True
        return connection

    def url_of(self, database: str) -> str:
        """As workers are told it."""
        url: URL = self._url.set(database=database)
        return url.render_as_string(hide_password=False)

    # ---------------------------------------------------------------- the study and its copies

    def _prepare(self) -> None:
        folder = self.folder / PREPARED
        folder.mkdir()
        file = folder / "struck.yaml"
        file.write_text(TINY)
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(PREPARED)))
        upgrade(self.url_of(PREPARED))
        plan = self._plan(PREPARED, "preparer")
        child = PROCESSES.Process(target=launcher.prepare, args=(plan, file))
        child.start()
        child.join(PATIENCE_S)
        assert child.exitcode == 0, plan.note("log").read_text()

    def copy(self, name: str, environment: Environment) -> Path:
        """The prepared study under another name: a database and a folder, which is returned."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copytree(self.folder / PREPARED / "artifacts", folder / "artifacts")
        copied = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(PREPARED)
        )
        setting = sql.SQL("ALTER DATABASE {} SET kdsearch.outage_grace_s = {}").format(
            sql.Identifier(name), sql.Literal(str(environment.grace_s))
        )
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(copied)
            cursor.execute(setting)
        return folder

    def discard(self, name: str) -> None:
        """Remove a copy."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        shutil.rmtree(self.folder / name)

    @contextmanager
    def damaged(self, source: str, name: str, statement: str) -> Iterator[str]:
        """A copy of a copy with one thing wrong on record; its name. Artifacts and logs are the same."""
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source))
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(made)
        shutil.copytree(self.folder / source, self.folder / name)
        with closing(self._connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
        yield name
        self.discard(name)

    def _plan(self, name: str, worker: str, point: str = "") -> Plan:
        folder = self.folder / name
        return Plan(
            name=worker,
            folder=folder,
            url=self.url_of(name),
            artifacts=(folder / "artifacts").as_uri(),
            home=folder / "home",
            study=STUDY,
            point=point,
        )

    @contextmanager
    def worker(self, name: str, worker: str, point: str = "") -> Iterator[Worker]:
        """A worker on a copy, which does not outlive the block."""
        plan = self._plan(name, worker, point)
        process = PROCESSES.Process(target=launcher.work, args=(plan,))
        process.start()
        running = Worker(plan, process)
        try:
            yield running
        finally:
            if running.exit_code is None:
                process.kill()
                running.ended()

    def query(self, name: str, statement: str, **values: object) -> list[tuple[object, ...]]:
        """What a database answers."""
        with closing(self._connect(name)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    # ---------------------------------------------------------------- the server

    def stop_at_once(self) -> None:
        """As `pg_ctl stop -m immediate`: no goodbye to anybody, recovery at the next start."""
        place = read_place(StateFolder(self._home))
        assert place is not None
        with postmaster.find(Path(place.data)) as found:
            assert found is not None, "Postgres did not run"
            signal.pidfd_send_signal(found.pidfd, signal.SIGQUIT)
            assert found.gone(within=60), "Postgres did not stop"
        assert not self.answers(), "Postgres was stopped and answers"

    def start(self) -> None:
        """Start it again where it was."""
        url = self._running.enter_context(embedded.embedded(self._home))
        assert make_url(url) == self._url, "workers know the server by its URL"
        wait_for("Postgres does not answer", self.answers)

    def answers(self) -> bool:
        """Whether somebody who connects now is served."""
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True


class Worker:
    """A worker process, and the notes that it and whoever strikes it leave each other."""

    def __init__(self, plan: Plan, process: multiprocessing.process.BaseProcess) -> None:
        self.plan, self._process = plan, process
        self._looking = threading.Lock()  # who looks first has the answer, who looks meanwhile a wrong one

    @property
    def exit_code(self) -> int | None:
        """None while it runs; any thread may ask."""
        with self._looking:
            return self._process.exitcode

    def reached(self) -> tuple[int, int]:
        """Wait until it is at its point; which trial it has there, and in which attempt."""
        here = self.plan.note("here")
        wait_for(
            f"{self.plan.name} does not come to {self.plan.point!r}: {self.said()[-2000:]}",
            lambda: here.exists() or self.exit_code is not None,
        )
        assert here.exists(), f"{self.plan.name} ended before {self.plan.point!r}: {self.said()[-2000:]}"
        number, attempt = here.read_text().split()
        return int(number), int(attempt)

    def goes(self, then: str = "on") -> None:
        """Let it go on from its point, or let something happen there."""
        launcher.tell(self.plan.note("go"), then)

    def signal(self, number: int) -> None:
        """Send a signal to the process; it has not been waited for, so the number is its own."""
        assert self._process.pid is not None
        assert self.exit_code is None, f"{self.plan.name} has ended before it was struck"
        os.kill(self._process.pid, number)

    @property
    def state(self) -> str:
        """The kernel's letter, e.g. ``T`` for stopped."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    def ended(self, seconds: float = PATIENCE_S) -> int:
        """Its exit code, once it has one."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code) is None:
            assert time.monotonic() < deadline, f"{self.plan.name} never ends: {self.said()[-3000:]}"
            time.sleep(0.02)
        return code

    def said(self) -> str:
        """Its log."""
        log = self.plan.note("log")
        return log.read_text(errors="replace") if log.exists() else ""


def upgrade(url: str) -> None:
    """Give a database kdsearch's tables."""
    engine = make_engine(url)
    with _MIGRATING:
        migrate.upgrade(engine)
    engine.dispose()


@contextmanager
def laid(folder: Path) -> Iterator[Ground]:
    """A ground in an empty folder, gone with its server on leaving."""
    PROCESSES.set_forkserver_preload([launcher.__name__])
    home = folder / "server"
    try:
        with ExitStack() as running:
            yield Ground(folder, running)
    finally:
        embedded.stop(home, force=True)
        record = home / "postgres" / "server.json"
        if record.exists():  # what root keeps elsewhere
            place = json.loads(record.read_text())
            shutil.rmtree(place["sockets"], ignore_errors=True)
            if place["account"] is not None:
                shutil.rmtree(Path(place["data"]).parent, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
