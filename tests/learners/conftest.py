"""Prompts of the learners' tests."""

import pytest

from mmsearch_jax.data.rows import Row
from tests.rollout import random_policy


@pytest.fixture
def rows(tmp_path):
    """Two prompts with a picture each."""
    made = []
    for shade in range(2):
        path = tmp_path / f"{shade}.png"
        path.write_bytes(random_policy.picture(shade))
        made.append(Row(str(shade), str(path), "Where is it?", ("Lima",), "crop", True))
    return made
