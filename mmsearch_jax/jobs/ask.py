"""`mmsearch ask`: one question about one image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.evaluation.ask import EpisodePrinter
from mmsearch_jax.images import image_urls
from mmsearch_jax.images.processing import load_image
from mmsearch_jax.jobs.policies import make_engine, named_policy
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.jobs.worlds import EVALUATION_WORLD, prepare_world
from mmsearch_jax.rollout.live_episode import LiveEpisode
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.settings.commands import EvaluationSettings


def read_image_argument(image: str | Path) -> bytes:
    """The encoded image at a path or a URL.

    Raises:
      ImageError: it cannot be read, or is not an image.
    """
    if str(image).startswith(image_urls.SCHEMES):
        encoded = image_urls.read_url(str(image))
        load_image(encoded)
        return encoded
    load_image(image)
    return Path(image).read_bytes()


def run_ask(
    settings: EvaluationSettings, workdir: Path, encoded: bytes, question: str, printer: EpisodePrinter | None = None
) -> Trajectory:
    """Asks one question about one encoded image, with the real mini-world's tools unless `tools.url` names others.

    Args:
      printer: prints the episode's progress.
    """
    policy = named_policy(settings)
    alone = dataclasses.replace(
        settings.engine, groups=1, num_slots=1, decode_width=0, extend_rows=(1,), decode_rows=()
    )
    engine = make_engine(settings.replace(engine=alone), policy)
    sampling = SamplingParams(temperature=settings.eval.temperature)
    request = EpisodeRequest("ask", "ask", question, encoded, settings.seed, sampling)

    def watch(run: LiveEpisode) -> None:
        if printer is not None:
            printer.update(run.episode.trajectory)
            if not run.episode.done and not run.parked:
                printer.writing(engine.renderer.decode(run.sequence.new_ids))

    world = Path() if settings.tools.url else prepare_world(settings, workdir, EVALUATION_WORLD)
    rules = dataclasses.replace(settings.episode, mode=settings.eval.mode)
    with search_server(settings.tools, world) as url:
        client = tool_client(settings.tools, url)
        return run_episodes_sync(engine, [request], rules, client, watch=watch)[0]
