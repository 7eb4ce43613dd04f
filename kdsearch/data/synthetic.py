"""Synthetic data: made-up shop opinions, genuine or spam, for the quickstart and tests; not real text.

Notable:
- Word order carries the label. Every cue comes in two orders of exactly the same words, one for each label
  ("Buy it, do not wait" against "Wait, do not buy it"); a bag of words sees only the praise around it,
  which leans one way a little more often (`LEANING`).
- The first cue is the headline, the second closes the text, so that even a small encoder that starts from
  nothing learns it from a few thousand rows.
- A share of rows is a near-duplicate of an earlier row, as spam campaigns are.
- A share of labels is wrong (`noise`), so that no student can be right more often than that allows.
- The same (rows, seed, noise) give the same texts on every machine; no text stands twice in a pool.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from kdsearch.core.errors import DataError, did_you_mean

SCHEME = "synthetic://"
NAME = "spam_opinions"
LABELS = ("genuine", "spam")
NEAR_DUPLICATES = 0.08
LEANING = 0.77
"""How often a text's praise is in the words that its label prefers: all that a bag of words can know."""
TWO_CUES = 0.5
"""How often a text holds two cues instead of one; they agree."""
ASIDES = 0.4
"""How often something stands between the two halves of a cue."""

ENDINGS = (".", "!", "!!")
PARAMETERS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "rows": (int, 1, 1_000_000),
    "seed": (int, 0, 2**31 - 1),
    "noise": (float, 0.0, 0.5),
}

THINGS = (
    "phone", "kettle", "jacket", "camera", "mattress", "blender", "backpack", "headset", "lamp", "watch",
    "keyboard", "printer", "tent", "toaster", "scooter", "speaker", "razor", "sofa", "monitor", "bottle",
)  # fmt: skip
PARTS = ("handle", "screen", "cover", "switch", "strap", "cable", "lid", "button", "manual", "plug")
PEOPLE = ("sister", "neighbour", "boss", "father", "wife", "husband", "friend", "cousin", "colleague")
TIMES = ("week", "month", "summer", "winter", "weekend", "spring", "year", "autumn", "season")
COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "yellow")
SHOPS = ("corner shop", "big store", "other brand", "old model", "market stall", "outlet")
HYPE = ("perfect", "brilliant", "superb", "flawless", "stunning", "magical", "unbeatable", "fabulous")
FLAWS = ("slow", "noisy", "flimsy", "heavy", "ugly", "fragile", "wobbly", "clumsy")
AFTERTHOUGHTS = ("honestly", "really", "as I said", "for sure", "of course", "believe me", "to be clear")
PRAISE = {
    "spam": ("an amazing deal", "the best ever", "a true miracle", "a dream come true", "a total bargain"),
    "genuine": ("a decent buy", "fine so far", "about what I expected", "good for the price", "all right"),
}
CUES = (
    ("buy it, {aside} do not wait", "wait, {aside} do not buy it"),
    ("I rated it before it arrived", "it arrived before I rated it"),
    ("I paid nothing, {aside} they paid for it", "they paid nothing, {aside} I paid for it"),
    ("{hype}, {aside} never {flaw}", "{flaw}, {aside} never {hype}"),
    ("copied from a text, {aside} not written by me", "written by me, {aside} not copied from a text"),
    ("tell everyone, {aside} ask nobody", "ask everyone, {aside} tell nobody"),
    ("the {shop} is worse than this {thing}", "this {thing} is worse than the {shop}"),
    ("first the link, {aside} then the {thing}", "first the {thing}, {aside} then the link"),
    ("a gift from the seller to me", "a gift from me to the seller"),
    ("half true, {aside} wholly paid for", "half paid for, {aside} wholly true"),
)
"""(spam, genuine): the same words in another order; slots are filled without looking at the label."""
PRAISES = (
    "the {part} of this {thing} is {praise}",
    "my {person} says it is {praise}",
    "for a {thing} it is {praise}",
    "after one {time} the {thing} is {praise}",
)
FILLERS = (
    "my {person} got one last {time}",
    "we use the {thing} every {time}",
    "it came in a {colour} box with a second {part}",
    "last {time} the {part} came off",
    "the {colour} one came from my {person} last {time}",
    "my {person} has the {thing} in {colour}",
    "I wanted a {colour} {part} and a longer {part2}",
)


@dataclass(frozen=True)
class Recipe:
    """What stands in ``synthetic://spam_opinions?rows=4000&seed=1&noise=0.02``."""

    rows: int = 1000
    seed: int = 0
    noise: float = 0.02

    @classmethod
    def parse(cls, address: str) -> Recipe:
        """From the address in a study file; raises DataError for whatever it does not know."""
        name, _, query = address.removeprefix(SCHEME).partition("?")
        if name != NAME:
            hint = f"the one generator is {SCHEME}{NAME}"
            raise DataError(f"{address}: no synthetic data called {name!r}", hint=hint)
        pairs = parse_qsl(query, keep_blank_values=True)
        for key, _ in pairs:
            if key not in PARAMETERS:
                hint = did_you_mean(key, PARAMETERS) or f"it takes {', '.join(PARAMETERS)}"
                raise DataError(f"{address}: unknown parameter {key!r}", hint=hint)
        return cls(**{key: _number(address, key, value) for key, value in pairs})


def _number(address: str, key: str, text: str) -> Any:
    convert, low, high = PARAMETERS[key]
    try:
        value = convert(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        expected = f"{key} is a number ({convert.__name__}) from {low} to {high}"
        raise DataError(f"{address}: {key} is {text!r}", hint=expected)
    return value


@dataclass(frozen=True)
class _Opinion:
    label: str
    praise: str
    filler: str
    cues: tuple[str, ...]
    ending: str

    @property
    def text(self) -> str:
        parts = (*self.cues[:1], self.praise, self.filler, *self.cues[1:])
        return ". ".join(part[0].upper() + part[1:] for part in parts) + self.ending


def spam_opinions(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Texts and labels; fewer rows of the same seed and noise are the first of more rows."""
    chance = random.Random(f"{NAME}/1/{recipe.seed}")
    wrong = random.Random(f"{NAME}/1/{recipe.seed}/noise")
    opinions: list[_Opinion] = []
    taken: set[str] = set()
    while len(opinions) < recipe.rows:
        near = opinions and chance.random() < NEAR_DUPLICATES
        opinion = _near_duplicate(chance, chance.choice(opinions)) if near else _opinion(chance)
        if opinion.text not in taken:
            taken.add(opinion.text)
            opinions.append(opinion)
    labels = [_noisy(wrong, opinion.label, recipe.noise) for opinion in opinions]
    return [opinion.text for opinion in opinions], labels


def _noisy(chance: random.Random, label: str, noise: float) -> str:
    other = LABELS[1 - LABELS.index(label)]
    return other if chance.random() < noise else label


def _opinion(chance: random.Random) -> _Opinion:
    label = chance.choice(LABELS)
    return _Opinion(
        label=label,
        praise=_praise(chance, label),
        filler=_filled(chance, chance.choice(FILLERS)),
        cues=tuple(_cue(chance, label) for _ in range(1 + (chance.random() < TWO_CUES))),
        ending=chance.choice(ENDINGS),
    )


def _near_duplicate(chance: random.Random, opinion: _Opinion) -> _Opinion:
    """The same praise and cues beside another filler, as one hand would post the same opinion again."""
    return replace(opinion, filler=_filled(chance, chance.choice(FILLERS)), ending=chance.choice(ENDINGS))


def _cue(chance: random.Random, label: str) -> str:
    return _filled(chance, chance.choice(CUES)[LABELS[1] != label])


def _praise(chance: random.Random, label: str) -> str:
    leaning = label if chance.random() < LEANING else LABELS[1 - LABELS.index(label)]
    return _filled(chance, chance.choice(PRAISES), praise=chance.choice(PRAISE[leaning]))


def _filled(chance: random.Random, template: str, *, praise: str = "") -> str:
    aside = f"{chance.choice(AFTERTHOUGHTS)}, " if chance.random() < ASIDES else ""
    part, part2 = chance.sample(PARTS, 2)
    return template.replace("{aside} ", aside).format(
        thing=chance.choice(THINGS),
        part=part,
        part2=part2,
        colour=chance.choice(COLOURS),
        person=chance.choice(PEOPLE),
        time=chance.choice(TIMES),
        shop=chance.choice(SHOPS),
        hype=chance.choice(HYPE),
        flaw=chance.choice(FLAWS),
        praise=praise,
    )
