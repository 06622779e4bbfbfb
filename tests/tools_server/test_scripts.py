"""Search in languages without blanks, with vowel signs, with points, in full-width forms: every engine finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools_server.corpora.open import open_index
from tools_server.corpora.passage_build import build_index
from tools_server.extracts import choose_extracts, split_extracts
from tools_server.hits import Page
from tools_server.ranking import indexable, query_words, words
from tools_server.text_index import TextIndex

PAGES = [
    Page("长城", "zh", "万里长城建于公元前七世纪，位于中国北方。它有两万多公里长。"),
    Page("黄河", "zh2", "黄河是中国第二长河，全长5464公里。"),
    Page("富士山", "ja", "富士山は日本で最も高い山で、標高は3776メートルである。初めて登ったのは誰か。"),
    Page("ガラパゴス諸島", "ja2", "エクアドル領の諸島で、ゾウガメが住む。"),
    Page("대한민국", "ko", "대한민국의 수도는 서울특별시이다. 공용어는 한국어이다."),
    Page("부산", "ko2", "부산은 바다에 접한 항구 도시이다."),
    Page("กรุงเทพ", "th", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"),
    Page("दिल्ली", "hi", "दिल्ली भारत की राजधानी है।"),
    Page("मुंबई", "hi2", "मुंबई में समुद्र तट है।"),
    Page("القاهرة", "ar", "القَاهِرَة هي عاصمة مصر."),
    Page("Αθήνα", "el", "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας."),
    Page("Йошкар-Ола", "ru", "Какой-то тёмный район стоит у реки. Его построили давно."),
    Page("Gießen", "de", "Die Straße führt am ﬂachen Ufer nach Gießen."),
    Page("IŞIK", "tr", "IŞIK İstanbul'da parlar."),
    Page("Paris", "fr", "Paris is the capital of France. La tour fut bâtie en 1889."),
]
QUESTIONS = [
    ("长城建于何时", "zh"),
    ("黄河有多长？", "zh2"),
    ("河", "zh2"),
    ("富士山の標高", "ja"),
    ("日本で一番高い山", "ja"),
    ("ｶﾞﾗﾊﾟｺﾞｽ諸島", "ja2"),
    ("ゾウガメ", "ja2"),
    ("全长５４６４公里", "zh2"),
    ("서울은 어느 나라의 수도인가", "ko"),
    ("서울", "ko"),
    ("바다 항구", "ko2"),
    ("เมืองหลวงของไทย", "th"),
    ("भारत की राजधानी", "hi"),
    ("दिल्ली", "hi"),
    ("मुंबई", "hi2"),
    ("عاصمة مصر", "ar"),
    ("القاهرة", "ar"),
    ("when was the tour batie", "fr"),
    ("capital of France", "fr"),
    ("πρωτεύουσα", "el"),
    ("ΠΡΩΤΕΥΟΥΣΑ ΕΛΛΑΔΑΣ", "el"),
    ("район", "ru"),
    ("темный район", "ru"),
    ("йошкар", "ru"),
    ("Straße", "de"),
    ("GIESSEN strasse", "de"),
    ("flachen", "de"),
    ("ışık", "tr"),
    ("istanbul", "tr"),
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("scripts")
    source = folder / "pages.jsonl"
    source.write_text("\n".join(json.dumps({"title": p.title, "text": p.text, "url": p.url}) for p in PAGES))
    found: dict[str, Any] = {"memory": TextIndex(PAGES)}
    for name in ("fts5", "tantivy"):
        build_index(folder / name, [Path(source)], name, show_progress=False)
        found[name] = open_index(folder / name)
    return found


@pytest.mark.parametrize("engine", ["memory", "fts5", "tantivy"])
@pytest.mark.parametrize(("question", "url"), QUESTIONS)
def test_an_ordinary_question_finds_its_page_first(engines, engine: str, question: str, url: str):
    assert engines[engine].search(question, 3)[0].page.url == url


@pytest.mark.parametrize("engine", ["memory", "fts5", "tantivy"])
def test_words_that_no_page_has_find_nothing(engines, engine: str):
    for question in ("鯨", "고래", "ปลา", "zzzz"):
        assert engines[engine].search(question, 3) == []


def test_words_are_pairs_and_marks_that_carry_meaning_stay():
    assert words("長城 Café が ｶﾞ") == ["長城", "cafe", "が", "ガ"]
    assert words("か") != words("が")
    assert words("ล่า") != words("ลา")
    assert words("कि") != words("का")
    assert words("كِتَاب") == words("كتاب")
    assert words("서울") == words("서울".encode().decode()) == ["서울"]


def test_plain_text_is_indexed_as_it_is_and_any_other_as_a_query_is_read():
    for text in ("Plain text, as it is", "a_b"):
        assert indexable(text) == text
    for text in ("Café naïve °C km² ½", "Ελλάδα, Йод, тёмный", "Straße ﬂach", "ΆΣ", "№ 5"):
        assert indexable(text) == indexable(indexable(text))
        assert words(indexable(text)) == words(text)


def test_a_long_question_is_bounded():
    assert len(query_words("word " + " ".join(f"w{i}" for i in range(90)))) == 32
    assert len(query_words("".join(chr(0x4E00 + i) for i in range(200)))) == 64


@pytest.mark.parametrize(
    "sentences",
    [
        ["Москва — столица.", "Её население велико. это не конец"],
        ["서울은 수도이다.", "한강이 흐른다."],
        ["القاهرة عاصمة مصر.", "يبلغ سكانها عشرة."],
        ["Η Αθήνα.", "Έχει λιμάνι."],
        ["Łódź leży tu.", "Śląsk tam."],
        ["Er sagte nein.", "«Über alles.»"],
        ["He paid approx. half of it.", "It e.g. works."],
    ],
)
def test_sentences_begin_as_their_script_begins_them(sentences: list[str]):
    assert split_extracts(" ".join(sentences)) == sentences


def test_extracts_of_chinese_text_are_its_sentences():
    extracts = split_extracts("万里长城建于公元前七世纪。它很长！「谁建的？」有人问。\n人口：两万")
    assert extracts == ["万里长城建于公元前七世纪。", "它很长！", "「谁建的？」", "有人问。", "人口：两万"]
    assert choose_extracts(extracts, "长城建于何时") == "万里长城建于公元前七世纪。"
    assert choose_extracts(extracts, "人口多少").startswith("人口：两万")
    assert choose_extracts(["长" * 300], "长") == "长" * 157 + "..."
