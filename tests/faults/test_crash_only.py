"""Commands that are killed at random moments and run again lose nothing; see `crash_only`."""

import signal

import pytest

if not hasattr(signal, "SIGKILL"):
    pytest.skip("Windows has no SIGKILL and no processes that are forked", allow_module_level=True)
pytest.importorskip("distributed", reason="needs pip install -e '.[sweep]'")
from . import crash_only

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "kills"), [("train", 12), ("record", 12), ("sweep", 3)])
def test_kills_at_random_moments_lose_nothing(kind, kills):
    tally = crash_only.kill(kind, kills, seed=26)
    assert tally.kills == kills and not tally.counts, tally.counts
