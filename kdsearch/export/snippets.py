"""How to load an exported student: the part of its card with snippets, one for each way that it can be."""

from __future__ import annotations

from collections.abc import Callable

from kdsearch.export.formats import HF, INT8, ONNX, TORCH
from kdsearch.export.manifest import Manifest
from kdsearch.export.standalone import RUNTIMES


def loading(manifest: Manifest) -> str:
    """A section; its Python runs as it stands, in the folder."""
    parts = [WAYS[name](manifest) for name in manifest.formats if name in WAYS]
    if {ONNX, INT8} & set(manifest.formats):
        parts.insert(0, _predict(manifest))
        parts.append(_onnxruntime(manifest))
    if manifest.self_contained:
        parts.append(_remote_code(manifest))
    return "## Loading\n\n" + "\n\n".join(parts)


def _block(said: str, code: str) -> str:
    return f"{said}\n\n```python\n{code}\n```"


def _predict(manifest: Manifest) -> str:
    shell = (
        '```bash\npython predict.py "a text"\npython predict.py --file texts.csv --text message\n'
        "python predict.py --check      # answers example_inputs.json again\n```"
    )
    choice = " `--runtime onnx-int8` takes the smaller graph." if INT8 in manifest.formats else ""
    return (
        f"With numpy, tokenizers and onnxruntime, nothing else, `predict.py` answers.{choice}\n\n{shell}\n\n"
        + _block(
            "In a program:",
            "import sys\n\n"
            "sys.dont_write_bytecode = True  # or `kdsearch verify` finds a __pycache__ added\n"
            "from predict import Student\n\n"
            'for found in Student.open().predict(["a text"]):\n'
            "    print(found.label, found.probability)",
        )
        + "\n\nWith kdsearch: `kdsearch predict . --file in.csv --to out.csv` for files of any size, and "
        "`kdsearch verify .` to see that nothing was altered."
    )


def _transformers(manifest: Manifest) -> str:
    return _block(
        "With transformers, where kdsearch is installed; no remote code is run:",
        "import kdsearch.hf  # registers the student with transformers' Auto classes\n"
        "from transformers import pipeline\n\n"
        'classify = pipeline("text-classification", model=".")\n'
        'print(classify("a text"))',
    )


def _remote_code(manifest: Manifest) -> str:
    return (
        _block(
            "With transformers, where kdsearch is not installed:",
            "from transformers import pipeline\n\n"
            'classify = pipeline("text-classification", model=".", trust_remote_code=True)\n'
            'print(classify("a text"))',
        )
        + "\n\n**This runs `modeling_kdsearch.py` of this folder.** Read it first; from the Hub, pin what "
        'you have read with `revision="..."`, a commit\'s full hash.'
    )


def _torch(manifest: Manifest) -> str:
    return _block(
        "With torch, safetensors and tokenizers, without transformers and kdsearch "
        "(a `bert_small` needs transformers); this runs `pytorch/student.py`:",
        "import json\n"
        "import runpy\n"
        "import torch\n"
        "from tokenizers import Tokenizer\n\n"
        'student = runpy.run_path("pytorch/student.py")["load"]()\n'
        'ids = torch.tensor([Tokenizer.from_file("tokenizer.json").encode("a text").ids])\n'
        "with torch.inference_mode():\n"
        "    logits = student(ids, torch.ones_like(ids))[0]\n"
        'labels = json.load(open("pytorch/student.json", encoding="utf-8"))["labels"]\n'
        "print(labels[int(logits.argmax())])",
    )


def _onnxruntime(manifest: Manifest) -> str:
    graph = RUNTIMES[ONNX if ONNX in manifest.formats else INT8].file
    return _block(
        "With onnxruntime, by hand:",
        "import json\n"
        "import numpy as np\n"
        "import onnxruntime\n"
        "from tokenizers import Tokenizer\n\n"
        'labels = json.load(open("kdsearch.json", encoding="utf-8"))["labels"]\n'
        f'session = onnxruntime.InferenceSession("{graph}", providers=["CPUExecutionProvider"])\n'
        'tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts at '
        f"{manifest.max_length} tokens by itself\n"
        'ids = np.array([tokenizer.encode("a text").ids], dtype=np.int64)\n'
        'logits = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]\n'
        "print(labels[int(logits[0].argmax())])",
    )


WAYS: dict[str, Callable[[Manifest], str]] = {HF: _transformers, TORCH: _torch}
