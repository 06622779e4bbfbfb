"""Encyclopedic-VQA's exact match (Mensink et al., 2023); a list is right from an IoU of 0.5.

Source: google-research/encyclopedic_vqa, evaluation_utils.py. The official score also accepts the answers that BEM (a
BERT model of answer equivalence) accepts. BEM's weights are only on TensorFlow Hub, so this figure is a lower bound of
the published one: read it together with the judge's.
"""

from __future__ import annotations

import re
import string

from mmsearch_jax.evaluation.metrics import vqa

LIST_MARK = "&&"
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’´`_")
_ARTICLES = re.compile(r"\b(?:the answer is|a|an|the)\b")
_TRUTH = {"entailment": "yes", "true": "yes", "contradiction": "no", "false": "no"}


def normalise(text: str) -> str:
    """Normalises punctuation, articles, "the answer is", number words and contractions.

    >>> normalise("The answer is: two.")
    '2'
    """
    bare = _ARTICLES.sub(" ", " ".join(text.lower().split()).translate(_WITHOUT_PUNCTUATION))
    return " ".join(_TRUTH.get(word, vqa.normalise(word) or word) for word in bare.split())


def exact_match(answer: str, gold: str) -> bool:
    """Whether an answer is the gold one. A gold list ("a&&b") needs a list with commas or "and" and an IoU >= 0.5."""
    if LIST_MARK not in gold:
        return normalise(answer) == normalise(gold)
    wanted = {normalise(part) for part in gold.split(LIST_MARK)} - {""}
    listed = answer.replace(" and ", ",").replace(" & ", ",").split(",")
    given = {normalise(part) for part in listed} - {""}
    return len(wanted & given) / len(wanted | given) >= 0.5
