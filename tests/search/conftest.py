"""Small registries, so that what the search tests expect does not change with each new student."""

from __future__ import annotations

import pytest

from kdsearch.core.space import Choice, Fixed, Param, Range
from kdsearch.search.spaces import Spaces


@pytest.fixture(scope="session")
def spaces() -> Spaces:
    textcnn = {
        "filters": Param(kind="int", default=Choice((64, 128)), low=1, high=4096, architecture=True),
        "kernel_sizes": Param(
            kind="ints", default=Choice(((2, 3, 4), (3, 4, 5))), low=1, high=64, architecture=True
        ),
        "dropout": Param(kind="float", default=Range(0.0, 0.5), low=0.0, high=0.95),
    }
    bilstm = {
        "hidden": Param(kind="int", default=Range(64, 256, step=64, integer=True), low=1, high=4096),
        "layers": Param(kind="int", default=Fixed(1), low=1, high=4, architecture=True),
        "ratio": Param(kind="float", default=Choice((0.5, 1.0)), low=0.1, high=4.0, architecture=True),
        "pooling": Param(kind="str", default=Choice(("max", "mean")), allowed=("max", "mean", "average")),
        "embedding": Param(kind="str", default=Fixed("random"), allowed=("random", "teacher", "vectors")),
        "vocabulary": Param(
            kind="str",
            default=Fixed("teacher"),
            allowed=("teacher", "words"),
            when=("embedding", ("random", "vectors")),
        ),
        "lower": Param(kind="bool", default=Choice((True, False)), when=("vocabulary", "words")),
    }
    offline = {
        "loss": Param(kind="str", default=Choice(("kl", "mse")), allowed=("kl", "mse")),
        "temperature": Param(
            kind="float", default=Range(1.0, 16.0, log=True), low=1.0, high=64.0, when=("loss", "kl")
        ),
        "lambda": Param(kind="float", default=Range(0.1, 1.0), low=0.0, high=1.0, open_low=True),
    }
    return Spaces(students={"textcnn": textcnn, "bilstm": bilstm}, schemes={"none": {}, "offline": offline})
