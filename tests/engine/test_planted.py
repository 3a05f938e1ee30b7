"""The simulation is not blind: of each bug that is planted it tells within so many seeds."""

import pytest

from engine.planted import BUGS
from engine.races import Race

SEEDS = 1_000


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_when_enough_seeds_are_played(bug):
    with BUGS[bug]():
        assert any(Race(seed).verdict() for seed in range(SEEDS))
