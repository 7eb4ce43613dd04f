"""The samplers by their YAML name: a further one is one file here and one entry below."""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.search.samplers.base import MakeSampler
from kdsearch.search.samplers.gp import gp
from kdsearch.search.samplers.known_latency import known_latency
from kdsearch.search.samplers.nsga2 import nsga2
from kdsearch.search.samplers.qmc import qmc
from kdsearch.search.samplers.random import random
from kdsearch.search.samplers.tpe import tpe

SAMPLERS: Mapping[str, MakeSampler] = {
    "tpe": tpe,
    "random": random,
    "gp": gp,
    "nsga2": nsga2,
    "qmc": qmc,
    "known_latency": known_latency,
}
