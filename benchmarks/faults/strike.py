"""One case: a worker waits at its point, the world breaks, the blow falls, the world is mended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.faults import checks
from benchmarks.faults.cases import ENVIRONMENTS, Case, Environment
from benchmarks.faults.ground import UNDISTURBED, Ground, Worker, wait_for
from benchmarks.faults.launcher import write_line

VICTIM, BYSTANDER, HEIR = "victim", "bystander", "heir"
BEYOND_LEASE = 1.5


@dataclass
class Outcome:
    """What came of a case."""

    case: str
    wrong: list[str] = field(default_factory=list)
    """Empty where all is as it has to be."""
    seconds: float = 0.0
    left_after_s: float | None = None
    """After SIGTERM: how long the process took to end."""
    again: int = 0
    """The most steps that one attempt trained again."""
    ends: list[str] = field(default_factory=list)
    """How the attempts at each trial ended."""


def undisturbed(ground: Ground) -> list[str]:
    """Work on a copy with one worker that nothing happens to; what is wrong with it."""
    ground.copy(UNDISTURBED, ENVIRONMENTS["nothing"])
    with ground.worker(UNDISTURBED, "alone") as alone:
        assert alone.ended() == 0, alone.said()
    return checks.found_wrong(ground, UNDISTURBED)


def run(case: Case, ground: Ground, name: str) -> Outcome:
    """Run one case in a copy called `name`, which stays where something is wrong."""
    started, outcome = time.monotonic(), Outcome(case.name)
    try:
        ground.copy(name, ENVIRONMENTS[case.environment])
        _strike(case, ground, name, outcome)
    except AssertionError as error:
        outcome.wrong.append(str(error))
    outcome.seconds = round(time.monotonic() - started, 1)
    if not ground.answers():
        ground.start()
    if not outcome.wrong:
        ground.discard(name)
    return outcome


def _strike(case: Case, ground: Ground, name: str, outcome: Outcome) -> None:
    environment = ENVIRONMENTS[case.environment]
    with ground.worker(name, VICTIM, f"{case.moment} {case.variant}") as victim:
        number, attempt = victim.reached()
        with ground.worker(name, BYSTANDER, "epoch step") as bystander:
            bystander.reached()
            with _broken(environment, ground, name):
                bystander.goes()  # what it trains has to wait for its delivery
                _blow(case, victim, outcome)
            if case.strike == "SIGSTOP":
                _wake_up_late(ground, name, victim, number, attempt)
            code = victim.ended()
            assert bystander.ended() == 0, bystander.said()[-3000:]
    if any(checks.left_over(ground.folder / name)):  # of one that ended last: whoever comes next delivers it
        with ground.worker(name, HEIR) as heir:
            assert heir.ended() == 0, heir.said()[-3000:]
    rows = ground.query(name, checks.known()["ends"])
    outcome.ends = [f"{row[0]}: {', '.join(str(end) for end in row[1])}" for row in rows]  # type: ignore[attr-defined]
    outcome.again = max(checks.trained_again(ground.folder / name).values(), default=0)
    outcome.wrong += checks.struck(case, code, victim.said(), rows)
    outcome.wrong += checks.found_wrong(ground, name, number if case.fails_the_trial else -1)


@contextmanager
def _broken(environment: Environment, ground: Ground, name: str) -> Iterator[None]:
    """Break what the environment says, and mend it when its time is over."""
    folder, started = ground.folder / name, time.monotonic()
    if environment.postgres_is_away:
        ground.stop_at_once()
    if environment.disk_is_full:
        (folder / "full").touch()
    yield
    time.sleep(max(0.0, started + environment.seconds - time.monotonic()))
    if environment.postgres_is_away:
        assert not ground.answers(), "Postgres was to be away and answers"
        ground.start()
    if environment.disk_is_full:
        refusals = folder / "refusals.log"
        wait_for("nobody met the full disk", lambda: refusals.stat().st_size > 0)
        (folder / "full").unlink()


def _blow(case: Case, victim: Worker, outcome: Outcome) -> None:
    if case.strike in ("exception", "hang"):
        victim.goes(case.strike)
        return
    victim.signal(getattr(signal, case.strike))
    if case.strike == "SIGKILL":
        victim.ended()
    elif case.strike == "SIGSTOP":
        wait_for("it does not stand still", lambda: victim.state == "T")
        victim.goes()  # as soon as it wakes up
    else:
        victim.goes()
        threading.Thread(target=_time_its_leaving, args=(victim, outcome), daemon=True).start()


def _time_its_leaving(victim: Worker, outcome: Outcome) -> None:
    started = time.monotonic()
    while victim.exit_code is None:
        time.sleep(0.02)
    outcome.left_after_s = round(time.monotonic() - started, 1)


def _wake_up_late(ground: Ground, name: str, victim: Worker, number: int, attempt: int) -> None:
    """Its lease is over, and whoever wants its trial has it, when it goes on."""
    time.sleep(BEYOND_LEASE * victim.plan.lease_s)

    def let_go() -> bool:
        return bool(ground.query(name, checks.known()["let_go"], number=number, attempt=attempt)[0][0])

    wait_for("its lease never ends", let_go)
    assert victim.state == "T", "it did not stand still"
    write_line(ground.folder / name, f"{VICTIM} {number} {attempt} woken")
    victim.signal(signal.SIGCONT)
