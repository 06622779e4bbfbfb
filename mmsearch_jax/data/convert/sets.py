"""The published sets by name."""

from __future__ import annotations

from mmsearch_jax.data.convert.coco_vqa import AOKVQA, OKVQA
from mmsearch_jax.data.convert.encyclopedic_vqa import ENCYCLOPEDIC_VQA
from mmsearch_jax.data.convert.infoseek import INFOSEEK
from mmsearch_jax.data.convert.published import PublishedSet
from mmsearch_jax.data.convert.search_sets import DEEPMMSEARCHVQA, FVQA
from mmsearch_jax.data.convert.short_answer_sets import DYNVQA, SIMPLEVQA

SETS: dict[str, PublishedSet] = {
    "deepmmsearchvqa": DEEPMMSEARCHVQA,
    "fvqa": FVQA,
    "infoseek": INFOSEEK,
    "encyclopedic-vqa": ENCYCLOPEDIC_VQA,
    "simplevqa": SIMPLEVQA,
    "dynvqa": DYNVQA,
    "okvqa": OKVQA,
    "a-okvqa": AOKVQA,
}
