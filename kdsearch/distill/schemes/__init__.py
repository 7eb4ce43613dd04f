"""The schemes by their YAML name: a further one is one file here and one entry below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsearch.core.space import Scalar
from kdsearch.distill.schemes.hint import Hint
from kdsearch.distill.schemes.joint_isolated import JointIsolated
from kdsearch.distill.schemes.joint_mutual import JointMutual
from kdsearch.distill.schemes.joint_sum import JointSum
from kdsearch.distill.schemes.multi_teacher import MultiTeacher
from kdsearch.distill.schemes.none import NoDistillation
from kdsearch.distill.schemes.offline import Offline
from kdsearch.distill.schemes.route import Route
from kdsearch.distill.stage import Scheme

SCHEMES: dict[str, type[Scheme]] = {
    "none": NoDistillation,
    "offline": Offline,
    "joint_isolated": JointIsolated,
    "joint_mutual": JointMutual,
    "joint_sum": JointSum,
    "multi_teacher": MultiTeacher,
    "hint": Hint,
    "route": Route,
}


def build_scheme(name: str, params: Mapping[str, Scalar]) -> Scheme:
    """A scheme from its YAML name and parameters (``lambda`` is a Python keyword: ``lambda_soft``)."""
    arguments: dict[str, Any] = {"lambda_soft" if key == "lambda" else key: v for key, v in params.items()}
    return SCHEMES[name](**arguments)
