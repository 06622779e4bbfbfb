"""Evaluates any policy on the paper's six benchmarks (DeepMMSearch-R1, sec. 4), its reviewers' ones and the mini-world.

mmsearch eval --config configs/eval/deepmmsearch.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval \
    --config.data=data/benchmarks --config.tools.url=http://127.0.0.1:8765
mmsearch eval --config configs/eval/deepmmsearch.py --config.endpoint.url=http://127.0.0.1:8000/v1 --config.endpoint.model=NAME

Missing sets are listed with how to get them, and the others run: on a fresh machine, only the mini-world. The engine's
sizes are for a 7B on one 80 GB chip.
"""

import ml_collections

from mmsearch_jax.core.config_files import as_config
from mmsearch_jax.core.settings import plain
from mmsearch_jax.recipes import tiny
from mmsearch_jax.settings.commands import EvaluationSettings
from mmsearch_jax.settings.evaluation import BenchmarkConfig as Set

OKVQA, AOKVQA = "okvqa.allenai.org; images: COCO val2014", "github.com/allenai/aokvqa; images: COCO val2017"


def get_config() -> ml_collections.ConfigDict:
    """All benchmarks with the paper's limits: 8,192 response tokens (sec. 4.1), plus prompt and observations."""
    config = as_config(EvaluationSettings(checkpoint=tiny.TINY_BASE))
    config.tools.url = ""
    config.miniworld.episode.update(tiny.EPISODE)
    sets = {
        "infoseek": Set(
            "infoseek",
            "infoseek",
            "val",
            "infoseek",
            2000,
            where="github.com/open-vision-language/infoseek; images: OVEN's",
        ),
        "encyclopedic_vqa": Set(
            "encyclopedic-vqa",
            "encyclopedic-vqa",
            "test",
            "exact_match",
            2000,
            where="github.com/google-research/google-research, encyclopedic_vqa; images: iNaturalist 2021, Google Landmarks v2",
        ),
        "simplevqa": Set(
            "simplevqa",
            "simplevqa",
            "test",
            "simplevqa",
            only={"language": "EN"},
            where="huggingface.co/datasets/m-a-p/SimpleVQA",
        ),
        "dynvqa": Set("dynvqa", "dynvqa", "en,zh", "f1_recall", where="github.com/Alibaba-NLP/OmniSearch, dataset"),
        "okvqa": Set("okvqa", "okvqa", "val", "vqa_accuracy", where=OKVQA),
        "a_okvqa": Set("a-okvqa", "a-okvqa", "val", "direct_answer", where=AOKVQA),
        "a_okvqa_choices": Set("a-okvqa", "a-okvqa", "val", "multiple_choice", choices=True, where=AOKVQA),
        "fvqa": Set("fvqa", "fvqa", "test", "match", where="huggingface.co/datasets/lmms-lab/FVQA"),
        "mmsearch": Set("mmsearch", "mmsearch", "end2end", "f1", where="huggingface.co/datasets/CaraJ/MMSearch"),
        "livevqa": Set(
            "livevqa", "livevqa", "test", "match", where="huggingface.co/datasets/ONE-Lab/LiveVQA-new (CC-BY-NC)"
        ),
        # Generated during the run, with its own search server.
        "miniworld": Set("miniworld"),
    }
    config.benchmarks = ml_collections.ConfigDict({name: plain(each) for name, each in sets.items()})
    return config
