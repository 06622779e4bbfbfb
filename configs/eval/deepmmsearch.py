"""The paper's six benchmarks (DeepMMSearch-R1, sec. 4), the reviewers' further ones, and the mini-world, for any policy.

mmsearch eval --config configs/eval/deepmmsearch.py --checkpoint runs/grpo/policies/grpo --workdir runs/eval \
    --config.data=data/benchmarks --config.tools.url=http://127.0.0.1:8765
mmsearch eval --config configs/eval/deepmmsearch.py --config.endpoint.url=http://127.0.0.1:8000/v1 --config.endpoint.model=NAME

A set that is not there is named with how to get it, and the others run: on a fresh machine that is the mini-world.
Sizes of the engine are for a 7B on one 80 GB chip.
"""

import ml_collections

from configs import qwen2_5_vl, tiny
from configs.eval import settings


def get_config() -> ml_collections.ConfigDict:
    """All benchmarks, by the paper's rules."""
    config = qwen2_5_vl.base(tiny.TINY_BASE)
    # Of a LoRA adapter: the checkpoint that it belongs to; empty: the one that the adapter names.
    config.base = ""
    config.update(settings.sections())
    config.tools.url = ""
    config.engine.tensor = 1
    # 8,192 tokens of responses (sec. 4.1); the prompt with its image and the observations come on top.
    config.episode.max_trajectory_tokens = 12288
    # Folder that holds the sets' folders.
    config.data = "data/benchmarks"
    # Names with commas between; empty: all.
    config.only = ""
    config.benchmarks = ml_collections.ConfigDict(
        {
            "infoseek": _set(
                "infoseek", "val", "infoseek", 2000, where="github.com/open-vision-language/infoseek; images: OVEN's"
            ),
            "encyclopedic_vqa": _set(
                "encyclopedic-vqa",
                "test",
                "exact_match",
                2000,
                where="github.com/google-research/google-research, encyclopedic_vqa; images: iNaturalist 2021, Google Landmarks v2",
            ),
            "simplevqa": _set(
                "simplevqa",
                "test",
                "simplevqa",
                only={"language": "EN"},
                where="huggingface.co/datasets/m-a-p/SimpleVQA",
            ),
            "dynvqa": _set("dynvqa", "en,zh", "f1_recall", where="github.com/Alibaba-NLP/OmniSearch, dataset"),
            "okvqa": _set("okvqa", "val", "vqa_accuracy", where="okvqa.allenai.org; images: COCO val2014"),
            "a_okvqa": _set("a-okvqa", "val", "direct_answer", where="github.com/allenai/aokvqa; images: COCO val2017"),
            "a_okvqa_choices": _set(
                "a-okvqa",
                "val",
                "multiple_choice",
                choices=True,
                where="github.com/allenai/aokvqa; images: COCO val2017",
            ),
            "fvqa": _set("fvqa", "test", "match", where="huggingface.co/datasets/lmms-lab/FVQA"),
            "mmsearch": _set("mmsearch", "end2end", "f1", where="huggingface.co/datasets/CaraJ/MMSearch"),
            "livevqa": _set("livevqa", "test", "match", where="huggingface.co/datasets/ONE-Lab/LiveVQA-new (CC-BY-NC)"),
            # Made on the spot, with a search server of its own. `tiny_rules`: our own policies get the short prompts that the tiny
            # one was trained with (configs/tiny.py); false: `config.episode`, as endpoints do in any case.
            "miniworld": {"tiny_rules": True},
        }
    )
    config.benchmarks.miniworld.episode = tiny.base().episode
    return config


def _set(
    source: str,
    split: str,
    metric: str,
    sample: int = 0,
    only: dict | None = None,
    choices: bool = False,
    where: str = "",
):
    """A published set in `data`/<source>, or a file of rows where `path` names one (.array_record, .jsonl, .parquet, .tar)."""
    return {
        "source": source,
        "path": source,
        "split": split,
        "metric": metric,
        "sample": sample,
        "only": ml_collections.ConfigDict(only or {}),
        "choices": choices,
        "where": where,
    }
