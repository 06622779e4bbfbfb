"""The first token of a policy in a new process, as `mmsearch ask` starts: python -m benchmarks.first_token WORK.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmsearch_jax.core.config_files import load
from mmsearch_jax.jobs.policies import make_engine, named_policy
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.commands import EvaluationSettings


def main() -> None:
    """Prints the token's id."""
    work = json.loads(Path(sys.argv[1]).read_text())
    given = [f"--config.checkpoint={work['folder']}"]
    settings = load(EvaluationSettings, "configs/eval/miniworld.py", given).settings
    engine = make_engine(settings, named_policy(settings))
    live = LiveSequence(engine.renderer.encode(work["prompt"]), [], 0, SamplingParams(0.0), plain=True)
    engine.acquire(live)
    engine.begin_turn(live, 1)
    engine.extend([live])
    engine.decode([live])
    print(engine.take(live).token_ids[0], flush=True)


if __name__ == "__main__":
    main()
