"""What all tests of the learners share."""

import pytest

from mmsearch_jax.data.rows import Row


@pytest.fixture(autouse=True)
def explicit_transfers(guarded_steps):
    """Every test of a learner runs its loops under the transfer guard."""


@pytest.fixture
def rows(tmp_path):
    """Two prompts with a picture each."""
    # Imported here because it imports JAX: see `pytest_configure` of tests/conftest.py.
    from tests.rollout import random_policy

    made = []
    for shade in range(2):
        path = tmp_path / f"{shade}.png"
        path.write_bytes(random_policy.picture(shade))
        made.append(Row(str(shade), str(path), "Where is it?", ("Lima",), "crop", True))
    return made
