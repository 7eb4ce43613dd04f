"""Expected hypervolume improvement at known latency: kdsearch's own sampler.

One model of quality over the whole conditional space, an exact improvement at each latency, trials under way
as fantasies. Too few trials to learn from: the tree-structured Parzen estimator, which begins at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kdsearch.core.space import encode
from kdsearch.search.drawing import fixed_in
from kdsearch.search.proposing import NUM_STARTUP_TRIALS, Outlook, look_around
from kdsearch.search.samplers.base import SamplerSetup
from kdsearch.search.samplers.tpe import tpe
from kdsearch.search.union import distributions


class KnownLatencySampler(BaseSampler):
    """Proposes a configuration as a whole; `search.drawing` takes it up where its values exist."""

    def __init__(self, setup: SamplerSetup) -> None:
        self._setup = setup
        self._fallback = tpe(setup)
        self._union = distributions(setup.plan)
        self._rng = np.random.default_rng(setup.seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All that any trial may have."""
        return self._union

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of one configuration; nothing while there is too little to learn from."""
        outlook = Outlook(self._setup.known, self._setup.plan)
        if outlook.num_observed < NUM_STARTUP_TRIALS:
            return {}
        config = look_around(outlook, self._rng, fixed_in(trial))
        if config is None:
            return {}
        return {n: encode(value) for n, value in config.params.items() if n in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Of the fallback."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)


def known_latency(setup: SamplerSetup) -> BaseSampler:
    """Of one trial."""
    return KnownLatencySampler(setup)
