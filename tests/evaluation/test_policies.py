"""The evaluated policy: our engine with a checkpoint or an adapter, and a run that is stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, FakeTools, Play
from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.trajectory import Status
from mmsearch_jax.evaluation.fingerprint import fingerprint
from mmsearch_jax.evaluation.policies import EnginePolicy
from mmsearch_jax.jobs.evaluation import named_checkpoint
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.models.policies import load_policy
from mmsearch_jax.recipes import tiny
from mmsearch_jax.rollout.scheduler import EpisodeRequest
from mmsearch_jax.settings.commands import EvaluationSettings
from mmsearch_jax.settings.policy import LoRAConfig


def checkpoint(folder, base=""):
    """Writes a checkpoint; returns its weights and its identity."""
    overrides = [f"--config.checkpoint={folder}", f"--config.base={base}"]
    policy, identity = named_checkpoint(load(EvaluationSettings, "configs/eval/miniworld.py", overrides).settings)
    return jax.tree.leaves(nnx.state(policy.model)), identity


def test_an_adapter_is_the_checkpoint_that_it_is_merged_into(tmp_path):
    adapted = add_lora(load_policy(tiny.TINY_BASE).model, LoRAConfig(rank=2, alpha=8.0))
    for i, layer in enumerate(lora_layers(adapted).values()):
        layer.lora_b[...] = 0.3 * jax.random.normal(jax.random.key(i), layer.lora_b.shape, jnp.float32)
    save_adapter(adapted, tmp_path / "adapter", "no/such/base")
    with pytest.raises(CheckpointError, match="give it with --config.base"):
        checkpoint(tmp_path / "adapter")
    (base, base_identity), (merged, identity) = (
        checkpoint(tiny.TINY_BASE),
        checkpoint(tmp_path / "adapter", tiny.TINY_BASE),
    )
    wanted = jax.tree.leaves(nnx.state(merge_lora(adapted)))
    assert all(np.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(merged, wanted, strict=True))
    assert not all(np.allclose(ours, theirs, atol=1e-3) for ours, theirs in zip(merged, base, strict=True))
    assert (base_identity["kind"], identity["kind"]) == ("checkpoint", "adapter")
    assert base_identity["fingerprint"] != identity["fingerprint"]


def test_a_fingerprint_is_of_contents_and_not_of_places(tmp_path):
    for name in "ab":
        (tmp_path / name / "params").mkdir(parents=True)
        (tmp_path / name / "params" / "weights").write_bytes(bytes(9 << 20))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    trained = np.frombuffer(bytes(9 << 20), np.uint8).copy()
    trained[::1000] += 1
    (tmp_path / "b" / "params" / "weights").write_bytes(trained.tobytes())
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "a", tmp_path / "b") != fingerprint(tmp_path / "a")


def test_once_stopped_no_episode_is_begun_and_those_under_way_end():
    plays = [Play(i + 1, ["<reason>I see it</reason><answer>Lima</answer>"]) for i in range(9)]
    policy, ended = EnginePolicy(lambda rules: scripted.engine(*plays), {}), []
    requests = [EpisodeRequest(f"q{p.number}", f"q{p.number}", p.question, scripted.picture()) for p in plays]
    policy.play(requests, CONFIG, FakeTools(), ended.append, lambda: bool(ended))
    # With four slots, four episodes began before the first ended.
    assert len(ended) == 4 and {outcome.trajectory.status for outcome in ended} == {Status.ANSWERED}
    assert ended[0].lengths["turns"] == 1 and ended[0].lengths["sampled"] > 5 and ended[0].trajectory.seconds > 0
