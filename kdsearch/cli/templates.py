"""What `kdsearch init` writes: study files as text, and samples of texts that run as they are."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from typing import NamedTuple

HEAD = """\
# A study of kdsearch: which small student keeps most of what a slow teacher knows, and how fast is it?
#
#   check it        kdsearch study validate {file}
#   what it costs   kdsearch study plan {file}
#   run it          kdsearch run {file}
#
# Every key is explained in docs/study-file.md.
# An editor completes them after `kdsearch schema > study.schema.json`
# with this as its first line: yaml-language-server: $schema=study.schema.json
version: 1
name: {name}
"""
SAMPLE_TEACHER = """\
teacher:
  # A small BERT made on the spot from the sample, so that everything runs at once, without a network.
  # For your own texts rather a pretrained one:
  #   model: {model}
  #   finetune: {{epochs: 2, learning_rate: 5e-5, batch_size: 32}}
  build: {{layers: 2, hidden: 64, heads: 2, vocab_size: 1000}}
  max_length: 48
  finetune: {{epochs: 3, learning_rate: 1e-3, batch_size: 32}}
"""
TEACHER = """\
teacher:
  model: ${{KDSEARCH_TEACHER:-{model}}}   # a folder or a Hub id
  max_length: 128
  finetune: {{epochs: 2, learning_rate: 5e-5, batch_size: 32}}   # leave it out for a teacher that classifies
"""
SEARCH = """\
constraints:
  latency_ms: {{max: 5.0}}        # what one query may take, at the percentile below
students:                       # left out: all of them, over their own ranges
{students}
schemes:
  - none                        # the control arm: the same student on labels alone
  - {{type: offline, loss: kl, temperature: {{min: 1, max: 16, log: true}}, lambda: {{min: 0.1, max: 1.0}}}}
training: {{epochs: {epochs}, learning_rate: {{min: 5e-4, max: 5e-3, log: true}}, batch_size: 32}}
objectives: {{quality: {quality}, latency: p90_ms}}
budget: {{trials: {trials}}}
"""
ENGLISH_STUDENTS = """\
  - {type: bag, embed_dim: [32, 64]}
  - {type: textcnn, filters: [32, 64, 128], kernel_sizes: [[2, 3], [2, 3, 4]]}
  - {type: bilstm, hidden: [64, 128]}"""
CHINESE_STUDENTS = """\
  - {type: bag, vocabulary: [teacher, characters], embed_dim: [32, 64]}
  - {type: textcnn, vocabulary: [teacher, characters], filters: [32, 64], kernel_sizes: [[1, 2, 3]]}
  - {type: bilstm, vocabulary: characters, hidden: [64, 128]}"""


class Sources(NamedTuple):
    """Where the pools are and what their columns are called."""

    train: str
    validation: str
    text: str = "text"
    label: str = "label"


class Template(NamedTuple):
    """One kind of study."""

    model: str
    """The pretrained teacher that stands for itself in the file."""
    students: str
    language: str = "en"


TEMPLATES = {
    "csv": Template("sentence-transformers/all-MiniLM-L6-v2", ENGLISH_STUDENTS),
    "hf": Template("google-bert/bert-base-uncased", ENGLISH_STUDENTS),
    "zh": Template("google-bert/bert-base-chinese", CHINESE_STUDENTS, language="zh"),
}
HUB = Sources("hf://stanfordnlp/sst2", "hf://stanfordnlp/sst2", "sentence", "label")
"""SST-2: splits `train` and `validation`; the pool's name is the split."""


def study_file(template: Template, name: str, sources: Sources, *, file: str, sample: bool) -> str:
    """A valid study file; with ``sample`` one that takes minutes and downloads nothing."""
    teacher = (SAMPLE_TEACHER if sample else TEACHER).format(model=template.model)
    search = SEARCH.format(
        students=template.students,
        epochs=3 if sample else 6,
        quality="accuracy" if sample else "macro_f1",
        trials=12 if sample else 40,
    )
    return HEAD.format(name=name, file=file) + _data(sources, template.language) + teacher + search


def _data(sources: Sources, language: str) -> str:
    lines = [
        "data:",
        f"  train: {json.dumps(sources.train, ensure_ascii=False)}",
        f"  validation: {json.dumps(sources.validation, ensure_ascii=False)}   # what the search looks at",
        "  # test: test.csv             # read once, at export",
        f"  text: {json.dumps(sources.text, ensure_ascii=False)}",
        f"  label: {json.dumps(sources.label, ensure_ascii=False)}",
    ]
    return "\n".join([*lines, *([f"  language: {language}"] if language != "en" else [])]) + "\n"


# ---------------------------------------------------------------- samples

_THINGS = (
    "这家店的菜",
    "酒店房间",
    "送货速度",
    "客服态度",
    "手机屏幕",
    "耳机音质",
    "电影剧情",
    "课程内容",
    "包装",
    "电池",
)
_GOOD = ("非常好", "让人满意", "超出预期", "真不错", "值得推荐", "很棒")
_BAD = ("非常差", "让人失望", "不如预期", "真糟糕", "不值得买", "很烂")
_WHEN = (
    "上个月买的",
    "朋友推荐的",
    "住了两晚",
    "看了很多评论",
    "活动价买的",
    "等了三天",
    "给家里人买的",
    "第二次来",
)
_ENDS = (
    "下次还会再来",
    "朋友也这么说",
    "价格一般",
    "用了一个星期",
    "第一次买",
    "总的来说就是这样",
    "周末去的",
)


def chinese_opinions(rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Made-up opinions, 好评 or 差评; a praise that is denied is none. Other seeds give other texts."""
    chance = random.Random(f"chinese_opinions/{seed}")
    taken: set[str] = set()
    while len(taken) < rows:
        good, denied = chance.random() < 0.5, chance.random() < 0.25
        words = _GOOD if good is not denied else _BAD
        said = f"{chance.choice(_THINGS)}{'并不是' if denied else ''}{chance.choice(words)}"
        text = f"{chance.choice(_WHEN)}，{said}，{chance.choice(_ENDS)}"
        # every text is of one seed alone, so that no pool holds a text of another one
        if text not in taken and zlib.crc32(text.encode()) % 2 == seed % 2:
            taken.add(text)
            yield text, "好评" if good else "差评"


def english_opinions(rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Made-up opinions, genuine or spam, see `data.synthetic`."""
    from kdsearch.data.synthetic import Recipe, spam_opinions

    texts, labels = spam_opinions(Recipe(rows=rows, seed=seed))
    yield from zip(texts, labels, strict=True)
