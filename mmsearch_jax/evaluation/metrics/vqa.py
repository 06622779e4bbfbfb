"""VQA accuracy (Antol et al., 2015): OK-VQA's metric, and A-OKVQA's in a simpler form.

Source: the official evaluations of VQA (github.com/GT-Vision-Lab/VQA, vqaEval.py) and A-OKVQA
(github.com/allenai/aokvqa). The VQA script does not normalise gold answers if all ten agree; here both sides are always
normalised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMERALS = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The contractions of the official table; normalisation restores their missing apostrophes.
_SPELT_OUT = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's
where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTED = _SPELT_OUT.split()
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED} | {
    # Forms with only one of two apostrophes.
    f"{stem}{gap}{rest}": word
    for word in _CONTRACTED
    if word.count("'") == 2
    for stem, middle, end in [word.split("'")]
    for gap, rest in (("'", middle + end), ("", f"{middle}'{end}"))
}


def normalise(text: str) -> str:
    """The official normalisation: punctuation, case, number words up to ten, articles, contractions.

    >>> normalise("The two dogs, dont run.")
    "2 dogs don't run"
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    bare = text
    for mark in _PUNCTUATION:
        # If a mark is next to a space anywhere, or a number has a comma, the mark is removed; else it becomes a space.
        alone = f"{mark} " in text or f" {mark}" in text or _DIGIT_COMMA.search(text) is not None
        bare = bare.replace(mark, "" if alone else " ")
    bare = _FULL_STOP.sub("", bare)
    words = [_NUMERALS.get(word, word) for word in bare.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """Mean over the annotators of min(1, matches among the others / 3): 1 of 10 gives 0.3, 2 give 0.6, 3 give 0.9.

    Args:
      given: each annotator's answer, usually ten.
    """
    answer, gold = normalise(answer), [normalise(each) for each in given]
    matches = gold.count(answer)
    left_out = [min(1.0, (matches - (each == answer)) / 3) for each in gold]
    return sum(left_out) / len(left_out)


def direct_answer_accuracy(answer: str, given: Sequence[str]) -> float:
    """A-OKVQA's direct answers: min(1, matches / 3). Its script compares raw strings; here both are normalised."""
    answer = normalise(answer)
    return min(1.0, sum(normalise(each) == answer for each in given) / 3)


def chosen(answer: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that an answer names by text or letter ("B", "(b) ...", "B. ..."); None unless it is one."""
    spoken = normalise(answer)
    named = [i for i, choice in enumerate(choices) if normalise(choice) == spoken]
    if not named:
        letter = re.fullmatch(r"\(?([A-Za-z])(?:[).:]\s*(.*))?", answer.strip(), re.DOTALL)
        if letter is not None:
            index, rest = ord(letter[1].upper()) - ord("A"), letter[2]
            if index < len(choices) and (not rest or normalise(rest) in (normalise(choices[index]), "")):
                named = [index]
    return named[0] if len(named) == 1 else None


def multiple_choice_accuracy(answer: str, choices: Sequence[str], correct: int) -> float:
    """A-OKVQA's multiple choice: 1 if the answer names the right choice, else 0."""
    return float(chosen(answer, choices) == correct)
