"""What a shell completes besides commands and options: names of studies.

Quick and silent, since a shell waits for the answer while somebody types. A given server is asked, with
little patience; the embedded one is never started for it: its studies are remembered in a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.store.connect import Store

PATIENCE_S = 2
"""How long a server may take to let a completion in: the least that libpq knows."""
REMEMBERED = "studies.txt"


def study_names(incomplete: str) -> list[str]:
    """Names of studies that begin so, newest first; none where anything is in the way."""
    with suppress(Exception):
        return [name for name in _names() if name.startswith(incomplete)]
    return []


def studies_and_files(incomplete: str) -> list[str]:
    """Names of studies, and study files that begin so."""
    files = sorted(str(path) for pattern in ("*.yaml", "*/*.yaml") for path in Path().glob(pattern))
    return [*study_names(incomplete), *(name for name in files if name.startswith(incomplete))]


def _names() -> Sequence[str]:
    url = os.environ.get("KDSEARCH_STORAGE")
    if not url:
        from kdsearch.store.statefolder import resolve_home

        return (resolve_home(os.environ) / REMEMBERED).read_text().splitlines()
    import psycopg2

    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
    connection = psycopg2.connect(plain, connect_timeout=PATIENCE_S, options="-c statement_timeout=2000")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM kdsearch.study ORDER BY created_at DESC LIMIT 500")
            return [str(name) for (name,) in cursor.fetchall()]
    finally:
        connection.close()


def remember(store: Store) -> None:
    """Write down the names that a completion offers while no embedded server runs."""
    from sqlalchemy import text

    with suppress(Exception), store.engine.connect() as connection:
        found = connection.execute(text("SELECT name FROM kdsearch.study ORDER BY created_at DESC LIMIT 500"))
        (store.home / REMEMBERED).write_text("\n".join(found.scalars()))
