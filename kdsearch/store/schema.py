"""Names of kdsearch's own schema in Postgres, apart from Optuna's tables in `public`."""

from __future__ import annotations

SCHEMA = "kdsearch"
VERSION_TABLE = "alembic_version_kdsearch"
"""Not ``alembic_version``: that is Optuna's, which skips its own initialisation where it finds one."""
MIGRATION_LOCK = 0x6B64_7365_6172_6368
"""Key of the advisory lock around every change of tables, ours and Optuna's."""
