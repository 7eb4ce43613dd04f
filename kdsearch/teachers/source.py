"""Where a teacher comes from: a folder or Hub id of any transformers encoder.

Notable:
- Nothing downloaded is executed or unpickled: safetensors and JSON only, `trust_remote_code` never.
- A teacher that classifies gives its logits in the study's label order, or it is an error.
- A fresh head depends on the seed alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from kdsearch.core.canonical import sha256_of
from kdsearch.core.errors import DataError
from kdsearch.data.batches import Output
from kdsearch.data.tokens import PADDING

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CONFIG = ("config.json",)
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model")
TOKENIZER = (*VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TEACHER_FILES = (*CONFIG, *WEIGHTS, *TOKENIZER)
GENERIC_LABEL = re.compile(r"LABEL_\d+")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """What a folder holds, read from its configuration alone."""

    classifies: bool
    labels: tuple[str, ...] | None
    """In the order of its logits; None if it does not classify or only knows ``LABEL_0``, ``LABEL_1``..."""
    num_labels: int | None
    width: int
    layers: int
    max_tokens: int | None
    """Longest input it was made for; None if it has no such limit."""
    fingerprint: str
    model_type: str
    """The architecture by transformers' name: ``bert``, ``modernbert``..."""

    @property
    def bert(self) -> bool:
        """Whether its layers are a BERT's, so that a small BERT can take them over."""
        return self.model_type == "bert"


class TeacherModule(nn.Module):
    """A transformers classifier as the training loop wants it: logits in the study's label order."""

    order_C: Tensor

    def __init__(self, classifier: Any, order: Sequence[int]) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("order_C", torch.tensor(order), persistent=False)

    @property
    def pad_id(self) -> int:
        """Id of the padding token; what stands on padding never counts."""
        return int(self.classifier.config.pad_token_id or 0)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Output:
        """Logits (B, C) and the mean of the last layer's vectors over real tokens (B, D)."""
        output = self.classifier(
            input_ids=input_ids_BT, attention_mask=attention_mask_BT, output_hidden_states=True
        )
        last_BTD = output.hidden_states[-1]
        return Output(output.logits[:, self.order_C], _masked_mean(last_BTD, attention_mask_BT))

    def hidden(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, layers: Sequence[int]) -> Tensor:
        """(B, L, H): mean over real tokens of what each of these layers gives, counted from 1."""
        output = self.classifier.base_model(
            input_ids=input_ids_BT, attention_mask=attention_mask_BT, output_hidden_states=True
        )
        states = output.hidden_states  # the embeddings stand before the first layer's
        depth = len(states) - 1
        if not layers or not all(1 <= layer <= depth for layer in layers):
            raise ValueError(f"layers {tuple(layers)} of an encoder with layers 1 to {depth}")
        means = [_masked_mean(states[layer], attention_mask_BT) for layer in layers]
        return torch.stack(means, dim=1)


def _masked_mean(states_BTH: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """(B, H): padding does not count; zero where nothing else is there."""
    mask_BT1 = attention_mask_BT.unsqueeze(-1).to(states_BTH.dtype)
    return (states_BTH * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1)


# ---------------------------------------------------------------- finding and describing


def resolve(model: str, base: Path, *, key: str = "teacher.model") -> Path:
    """The folder of `key`: a directory relative to `base`, or a Hub id (``name@revision``), fetched."""
    folder = base / Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not HUB_ID.fullmatch(model) or model.startswith("."):
        owner = "teacher" if key == "teacher.model" else key
        raise DataError(f"{owner} {model!r}: no such folder ({folder})", hint=f"check `{key}`")
    return _fetch(model)


def _fetch(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=list(TEACHER_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(
            f"teacher {model!r}: neither a folder here nor found on the Hub ({reason})",
            hint="give a local folder as `teacher.model`, or check the name and the network",
        ) from error
    return Path(found)


def teacher_files(folder: Path) -> list[Path]:
    """The files that make a teacher, sorted; what else lies there (ONNX, read-me) is no part of it."""
    paths = (path for path in folder.iterdir() if path.is_file())
    return sorted(path for path in paths if any(fnmatch(path.name, p) for p in TEACHER_FILES))


def fingerprint(folder: Path, patterns: Sequence[str] = TEACHER_FILES) -> str:
    """SHA-256 over names and contents of the files that decide what a teacher answers."""
    digests = {}
    for path in teacher_files(folder):
        if any(fnmatch(path.name, pattern) for pattern in patterns):
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sha256_of(digests)


def tokenizer_fingerprint(folder: Path) -> str:
    """SHA-256 over the vocabulary alone: the other files change whenever a tokenizer is saved again."""
    whole = (folder / "tokenizer.json").is_file()
    return fingerprint(folder, VOCABULARY[:1] if whole else VOCABULARY)


def describe(folder: Path) -> TeacherSource:
    """What the folder holds; raises DataError if transformers could not load it from safetensors."""
    config = _config(folder)
    if not any(fnmatch(path.name, "*.safetensors") for path in folder.iterdir()):
        raise DataError(
            f"teacher {folder}: no *.safetensors in it",
            hint="convert the weights with save_pretrained(); pickled weights are never loaded",
        )
    architectures = config.architectures or []
    classifies = any(a.endswith("ForSequenceClassification") for a in architectures) and config.num_labels > 1
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels)) if classifies else None
    generic = names is not None and all(GENERIC_LABEL.fullmatch(name) for name in names)
    return TeacherSource(
        classifies=classifies,
        labels=None if generic else names,
        num_labels=config.num_labels if classifies else None,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        max_tokens=_max_tokens(folder, config),
        fingerprint=fingerprint(folder),
        model_type=str(config.model_type),
    )


def _config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise DataError(
            f"teacher {folder}: no config.json in it", hint="give a folder of a transformers encoder"
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise DataError(
            f"teacher {folder}: transformers cannot read its config.json: {str(error).splitlines()[0]}",
            hint="give a folder of a transformers encoder; code from the Hub is never run",
        ) from error
    if not all(isinstance(getattr(config, name, None), int) for name in ("hidden_size", "num_hidden_layers")):
        raise DataError(f"teacher {folder}: a {config.model_type} is not a text encoder", hint="e.g. a BERT")
    return config


def _max_tokens(folder: Path, config: Any) -> int | None:
    """The tokenizer knows; what it does not say is estimated from the position table."""
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8")).get("model_max_length") if path.is_file() else None
    limits = [getattr(config, "max_position_embeddings", None), said]
    return min((int(limit) for limit in limits if limit is not None and 0 < limit < 10**9), default=None)


# ---------------------------------------------------------------- loading and saving


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' load reports and progress bars."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer, which neither cuts nor pads unless told to; it must have a padding token."""
    hint = "the folder needs tokenizer.json and tokenizer_config.json"
    if not any(fnmatch(path.name, pattern) for path in teacher_files(folder) for pattern in VOCABULARY):
        raise DataError(f"teacher {folder}: no tokenizer in it", hint=hint)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"teacher {folder}: its tokenizer cannot be read: {reason}", hint=hint) from error
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise DataError(
            f"teacher {folder}: its tokenizer is slow or has no padding token",
            hint="save a fast tokenizer (tokenizer.json) with a pad token beside the weights",
        )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def renamed(own: Sequence[str], label_map: Mapping[str, str] | None, *, where: str) -> tuple[str, ...]:
    """The teacher's labels by the data's names, in the order of its logits; DataError unless one to one."""
    unknown = sorted(set(label_map or {}) - set(own))
    if unknown:
        raise DataError(f"label_map: teacher {where} has no label {unknown[0]!r}", hint=f"it has {list(own)}")
    names = tuple((label_map or {}).get(name, name) for name in own)
    if len(set(names)) < len(names):
        raise DataError(
            f"teacher {where} has the labels {list(names)}: one name for several of its logits",
            hint="give each of the teacher's labels a name of its own in `teacher.label_map`",
        )
    return names


def label_order(
    own: Sequence[str], labels: Sequence[str], *, label_map: Mapping[str, str] | None, where: str
) -> list[int]:
    """For each of the study's labels the position of the teacher's logit; DataError unless one to one."""
    names = renamed(own, label_map, where=where)
    if sorted(names) != sorted(labels):
        generic = all(GENERIC_LABEL.fullmatch(name) for name in own)
        raise DataError(
            f"teacher {where} has the labels {list(names)}, the data {list(labels)}",
            hint="say which is which: `teacher: {label_map: {"
            + ", ".join(f"{o}: {d}" for o, d in zip(own, labels, strict=False))
            + "}}`"
            + (" (its own names mean nothing, so check the order)" if generic else ""),
        )
    return [names.index(label) for label in labels]


def load_classifier(
    folder: Path, labels: Sequence[str], *, label_map: Mapping[str, str] | None = None
) -> TeacherModule:
    """A teacher that classifies already, in evaluation mode, its logits in the order of `labels`."""
    source = describe(folder)
    if not source.classifies:
        raise DataError(f"teacher {folder} does not classify", hint="add `teacher.finetune`")
    own = [str(name) for _, name in sorted(_config(folder).id2label.items())]
    order = label_order(own, labels, label_map=label_map, where=str(folder))
    with quiet():
        classifier = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    return TeacherModule(classifier, order).eval()


def load_encoder_for(folder: Path, labels: Sequence[str], *, seed: int) -> TeacherModule:
    """The encoder with a fresh classification head, decided by the seed; its labels are `labels`."""
    config = _config(folder)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    torch.manual_seed(seed)
    with quiet():
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        encoder = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    missing, _ = classifier.base_model.load_state_dict(encoder.state_dict(), strict=False)
    if len(missing) > len(encoder.state_dict()) / 2:
        raise DataError(f"teacher {folder}: its weights do not fit a classifier", hint="give a plain encoder")
    return TeacherModule(classifier, range(len(labels)))


def freeze_all_but_last(module: TeacherModule, k: int) -> None:
    """Only the last k encoder layers, what follows them and the head learn."""
    encoder = module.classifier.base_model
    depth = module.classifier.config.num_hidden_layers
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not stacks or k > depth:
        raise DataError(
            f"the teacher has {depth} encoder layers" + ("" if stacks else ", which share their weights"),
            hint=f"`layers: {{last: {k}}}` cannot be; use `all`" + (f" or at most {depth}" if stacks else ""),
        )
    _freeze_below(encoder, stacks[0][depth - k :])


def _freeze_below(encoder: nn.Module, last: nn.Module) -> None:
    """Embeddings and lower layers stand still; what follows the last (pooler, norm) goes on learning."""
    learning = {id(p) for p in last.parameters()}
    behind = False
    for child in encoder.children():
        within = {id(p) for p in child.parameters()}
        if behind:
            learning |= within
        behind = behind or bool(learning & within)
    for parameter in encoder.parameters():
        parameter.requires_grad = id(parameter) in learning


def save_teacher(module: TeacherModule, tokenizer: Any, folder: Path) -> None:
    """An ordinary transformers folder that `load_classifier` reads; its labels are the study's names."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        module.classifier.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)


def word_table(folder: Path, id_table: npt.NDArray[np.int64], num_tokens: int) -> npt.NDArray[np.float32]:
    """The teacher's vectors of word pieces by compact id, (num_tokens, width).

    Padding is zero; what stands for several word pieces, as the unknown one does, is their mean.
    """
    with quiet():
        encoder = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    weight_VE = encoder.get_input_embeddings().weight.detach().numpy()
    known = id_table[: len(weight_VE)]  # a tokenizer may have more ids than its model has vectors
    sums = np.zeros((num_tokens, weight_VE.shape[1]), np.float64)
    np.add.at(sums, known, weight_VE[: len(known)])
    counts = np.bincount(known, minlength=num_tokens)
    table = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    table[PADDING] = 0.0
    return table
