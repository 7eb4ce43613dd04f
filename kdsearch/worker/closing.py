"""The end of a study: who is trained again with further seeds, and how sure the front is."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.core.records import Tried
from kdsearch.core.spec import StudySpec
from kdsearch.worker.material import Material


def wanted_seeds(spec: StudySpec, tried: Sequence[Tried], floor: float) -> list[tuple[int, int]]:
    """Trial number and seed of every further training."""
    return []


def put_standings(material: Material) -> None:
    """Put on record how sure the front is."""
