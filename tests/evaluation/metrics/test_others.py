"""The other metrics, against values computed by hand: Encyclopedic-VQA, MMSearch, Dyn-VQA, SimpleVQA; and the table."""

import json

import pytest

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.evaluation.metrics import encyclopedic_vqa, graded, token_overlap
from mmsearch_jax.evaluation.metrics.by_name import METRICS, MetricScore, gave_up, metric_named


def row(answers=("Lima",), meta=None, split=""):
    return Row("r", "", "q?", answers, "", None, meta=meta or {}, provenance={"split": split})


def test_encyclopedic_vqa_matches_singles_exactly_and_lists_by_half():
    assert encyclopedic_vqa.exact_match("The answer is: the Menger family.", "Menger family")
    assert encyclopedic_vqa.exact_match("True", "yes") and not encyclopedic_vqa.exact_match("Menger", "Menger family")
    # {ants, seeds} of {ants, seeds, fruit, fish}: 2 of 4; with one more candidate 2 of 5.
    assert encyclopedic_vqa.exact_match("ants and seeds", "ants&&seeds&&fruit&&fish")
    assert not encyclopedic_vqa.exact_match("ants, seeds, worms", "ants&&seeds&&fruit&&fish")


def test_f1_counts_common_words_and_leaves_yes_and_no_alone():
    # 3 common words ("tower", "of", "pisa"), 3 in the answer, 4 in the gold answer: P 1, R 3/4.
    assert token_overlap.best_f1("The tower of Pisa", ["Pisa", "Leaning Tower of Pisa"]) == pytest.approx(6 / 7)
    assert token_overlap.f1("yes", "yes it is") == 0.0 and token_overlap.f1("Yes!", "yes") == 1.0


def test_f1_recall_is_the_share_of_a_gold_answers_words():
    golds = ["保时捷 944", "Porsche 944."]
    assert token_overlap.f1_recall("It is a Porsche, model 944.", golds, "en") == 1.0
    assert token_overlap.f1_recall("a Porsche", golds, "en") == 0.5
    assert token_overlap.f1_recall("保时捷", golds, "zh") == 0.75
    assert token_overlap.f1_recall("二〇一二年", ["二〇一二"], "zh") == 1.0
    assert token_overlap.f1_recall("  ", golds, "en") == 0.0


def test_words_are_parted_as_the_sources_do_for_plain_answers():
    assert token_overlap.english_words("In 2,012 the U.S. won, 3-1!") == ["in", "2,012", "the", "u.s", "won", "3-1"]
    assert token_overlap.chinese_words("《平安》 2012，OK。") == ["平", "安", "2012", "ok"]


def test_f_score_has_the_value_of_its_formula():
    # 2 right, 1 wrong, 1 not attempted: 0.5 of all, 2/3 of the attempted.
    grades = [graded.CORRECT] * 2 + [graded.INCORRECT, graded.NOT_ATTEMPTED]
    assert graded.f_score(grades)["f_score"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert graded.f_score([])["f_score"] == graded.f_score([graded.NOT_ATTEMPTED])["f_score"] == 0.0


def test_infoseek_headline_is_of_its_splits():
    scored = [
        MetricScore(row(split="val_unseen_question", meta={"question_type": "String"}), "Lima", 1.0),
        MetricScore(row(split="val_unseen_question", meta={"question_type": "Numerical"}), "3", 0.0),
        MetricScore(row(split="val_unseen_entity"), "Lima", 1.0),
    ]
    score, parts = METRICS["infoseek"].headline(scored)
    assert score == pytest.approx(2 / 3)
    assert parts == {"unseen_question": 0.5, "unseen_entity": 1.0, "numerical": 0.0, "string": 1.0}


def test_each_metric_reads_its_fields_of_the_row():
    ten = json.dumps(["b"] * 9 + ["c"])
    assert METRICS["vqa_accuracy"].score(row(meta={"direct_answers": ten}), "c") == pytest.approx(0.3)
    assert METRICS["direct_answer"].score(row(meta={"direct_answers": ten}), "c") == pytest.approx(1 / 3)
    choices = {"choices": '["a", "b"]', "correct_choice": "1"}
    assert METRICS["multiple_choice"].score(row(meta=choices), "b") == 1.0
    assert METRICS["infoseek"].score(row(("1.0",), {"answer_range": "[0.9, 1.1]"}), "1.05") == 1.0
    assert METRICS["infoseek"].score(row(("Lima", "Ciudad")), "ciudad") == 1.0
    assert METRICS["exact_match"].score(row(("ants, seeds",), {"answer_list": "ants&&seeds"}), "seeds and ants") == 1.0
    assert METRICS["f1_recall"].score(row(meta={"language": "zh"}), "Lima") == 1.0
    with pytest.raises(DataError, match=r"needs meta\['direct_answers'\]"):
        METRICS["vqa_accuracy"].score(row(), "x")
    with pytest.raises(ConfigError, match="unknown metric 'bem'"):
        metric_named("bem")


def test_giving_up_is_not_an_attempt():
    assert gave_up(None) and gave_up("Unable to answer due to lack of relevant information.")
    assert not gave_up("Lima")
