"""Load an exported student by the code in its folder: done once, while it is exported, to prove that code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from kdsearch.export.formats import TORCH_FOLDER
from kdsearch.export.verify import FloatArray, IntArray, Run

NAME = "kdsearch_exported_code"


def torch_run(folder: Path) -> Run:
    """The student that `pytorch/student.py` loads."""
    with _loaded(folder / TORCH_FOLDER / "student.py") as module:
        student = module.load(folder / TORCH_FOLDER)
    return _run(lambda ids, mask: student(ids, mask)[0])


def modeling_run(folder: Path) -> Run:
    """The model that `modeling_kdsearch.py` makes of the folder."""
    with _loaded(folder / "modeling_kdsearch.py") as module:
        model = module.KdsearchStudent.from_pretrained(folder).eval()
    return _run(lambda ids, mask: model(ids, attention_mask=mask).logits)


def _run(forward: Callable[[Any, Any], Any]) -> Run:
    def run(ids_BT: IntArray, mask_BT: IntArray) -> FloatArray:
        with torch.inference_mode():
            logits_BC: FloatArray = forward(torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)).numpy()
        return logits_BC

    return run


@contextmanager
def _loaded(path: Path) -> Iterator[ModuleType]:
    """The module in a file, known under a name of its own for as long as it is looked at."""
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing is added to the folder
    sys.modules[NAME] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.dont_write_bytecode = writes
        del sys.modules[NAME]
