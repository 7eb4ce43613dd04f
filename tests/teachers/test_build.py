"""A teacher built from a configuration: the same texts and seed give the same one in every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdsearch.core.specteacher import BuildSpec
from kdsearch.teachers import source
from kdsearch.teachers.build import SPECIAL, build_teacher, train_word_pieces

TEXTS = tuple(
    f"{a} {b} {c}"
    for a in ("Buying", "selling", "waiting", "asked", "asking")
    for b in ("kettle", "phones", "jackets", "ünïcode", "中文")
    for c in ("cheaply", "quickly!", "12345", "🎉")
)
SPEC = BuildSpec(layers=2, hidden=16, heads=2, vocab_size=150)
PROGRAM = """
import sys
from pathlib import Path
from kdsearch.core.specteacher import BuildSpec
from kdsearch.teachers.build import build_teacher
from kdsearch.teachers.source import fingerprint
texts = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
spec = BuildSpec(layers=2, hidden=16, heads=2, vocab_size=150)
print(fingerprint(build_teacher(spec, texts, ("a", "b"), max_length=16, seed=3, folder=Path(sys.argv[2]))))
"""


def build(folder: Path, *, seed: int = 3) -> Path:
    return build_teacher(SPEC, TEXTS, ("a", "b"), max_length=16, seed=seed, folder=folder)


def test_every_process_builds_the_same_teacher(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS), encoding="utf-8")
    here = source.fingerprint(build(tmp_path / "here"))
    for k in range(2):
        argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "texts"), str(tmp_path / f"there{k}")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        assert (done.stdout.strip(), done.stderr) == (here, "")
    assert source.fingerprint(build(tmp_path / "other", seed=4)) != here


def test_the_vocabulary_holds_specials_pieces_and_no_more_than_asked() -> None:
    vocabulary = train_word_pieces(TEXTS, 150)
    assert tuple(vocabulary)[:5] == SPECIAL and list(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 150
    assert len(train_word_pieces(TEXTS, 70)) == 70
    assert {"##ing", "##ed"} & set(vocabulary)


def test_rare_characters_give_way_where_there_are_more_than_fit() -> None:
    texts = ["a b c"] * 5 + ["".join(chr(0x4E00 + k) for k in range(200))]
    vocabulary = train_word_pieces(texts, 64)
    assert len(vocabulary) <= 64
    assert {"a", "b", "c"} <= set(vocabulary)


@pytest.mark.parametrize("text", ["", "🦄", "a" * 500, "buying 中文 quickly!", "\x00\x01"])
def test_the_tokenizer_takes_any_text(tmp_path: Path, text: str) -> None:
    tokenizer = source.load_tokenizer(build(tmp_path))
    ids = tokenizer(text, truncation=True, max_length=16)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert len(ids) <= 16 and max(ids) < len(tokenizer)
    assert tokenizer.pad_token_id == 0


def test_a_built_teacher_is_an_encoder_of_the_size_asked_for(tmp_path: Path) -> None:
    found = source.describe(build(tmp_path))
    assert (found.classifies, found.width, found.layers, found.max_tokens) == (False, 16, 2, 16)
