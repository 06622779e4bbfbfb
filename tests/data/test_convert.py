"""Rows in each source's layout, with defects that occur in practice: converted, or rejected with a reason."""

import json
import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import first_turn_prompt, later_prompt, parse_turn
from mmsearch_jax.data.convert import pickles
from mmsearch_jax.data.convert.conversion import SOURCES, convert, convert_cache
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.data.storage import FORMATS, read_rows, write_rows
from tests.data import odd_images
from tests.data.rows import conversation, full_row, jpeg

USER = "Answer by searching. Question: Which flag is it?"


def fvqa(name, **changes):
    """A row in the format of MMSearch-R1's Parquet files."""
    return {
        "data_id": name,
        "prompt": [{"role": "system", "content": "Search."}, {"role": "user", "content": f"<image>\n{USER}"}],
        "images": [{"bytes": jpeg(len(name)), "path": None}],
        "reward_model": {"ground_truth": "Peru", "candidate_answers": '["Peru", "Republic of Peru"]', "style": "rule"},
        "data_source": "fvqa_train",
        "image_urls": None,
        "category": "flags",
        "extra_info": {"split": "train", "index": 3},
    } | changes


def reward(**changes):
    return {"ground_truth": "Peru", "candidate_answers": None, "style": "rule"} | changes


def write_parquet(rows, path):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def refused(folder, out="*"):
    """Reasons by row, of the output with this name."""
    lines = [line for path in folder.glob(f"rejected-{out}.jsonl") for line in path.read_text().splitlines()]
    return {record["row"]: record["reason"] for record in map(json.loads, lines)}


def test_an_image_that_is_no_regular_file_or_that_no_policy_can_be_shown_is_rejected(tmp_path):
    odd_images.write_all(tmp_path)
    names = ["plain.png", "pipe.png", "directory.png", "narrow.png", "tall.png", "data:,", "data:image/png;base64,"]
    lines = [
        json.dumps({"id": str(i), "image": name, "question": "Q?", "answers": ["a"]}) for i, name in enumerate(names)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    # A pipe that is opened is never read to its end.
    counts = convert("rows", tmp_path / "in.jsonl", tmp_path / "out.jsonl", show_progress=False)
    assert (counts.read, counts.written) == (7, 1)
    reasons = list(refused(tmp_path, "out.jsonl").values())
    parts = ("not a regular file", "is a directory", "too narrow", "too narrow", "empty (0 bytes)", "empty (0 bytes)")
    assert all(part in reason for part, reason in zip(parts, reasons, strict=True)), reasons


def test_a_line_that_is_null_is_counted_and_rejected_but_a_blank_one_is_none(tmp_path):
    line = json.dumps({"id": "1", "image": "", "question": "Q?", "answers": ["a"]})
    (tmp_path / "in.jsonl").write_text(f"{line}\n\nnull\n \n")
    counts = convert("rows", tmp_path / "in.jsonl", tmp_path / "out.jsonl", show_progress=False)
    assert (counts.read, counts.written) == (2, 1)
    assert list(refused(tmp_path).values()) == ["null where a row should be; each line must be one row"]


def test_a_reason_is_one_line_of_moderate_length(tmp_path):
    sound = {"id": "1", "image": "", "question": "Q?", "answers": ["a"]}
    deep = json.dumps(sound | {"kind": "@"}).replace('"@"', "[" * 900 + "]" * 900)
    odd = [
        {"kind": "x" * 100_000},
        {"target": [7] * 5000},
        {"search_required": {"a": "b\n" * 3000}},
        {"turns": ["turn"] * 3000},
        {"image": "two\nlines.png"},
        {"image": "name" * 3000},
        {"schema": [1] * 3000},
        {"placements": [{"entity": "a", "box": [1] * 3000}]},
    ]
    (tmp_path / "in.jsonl").write_text(
        "\n".join([deep, *(json.dumps(sound | each) for each in odd), json.dumps(sound)])
    )
    convert("rows", tmp_path / "in.jsonl", tmp_path / "out.jsonl", show_progress=False)
    reasons = list(refused(tmp_path).values())
    assert len(reasons) == len(odd) + 1
    assert all(len(reason) < 1000 and reason.isprintable() for reason in reasons), reasons
    assert "and 2988 more errors" in reasons[4] and "two\\nlines.png" in reasons[5]


def test_mmsearch_r1_rows_and_their_known_defects(tmp_path):
    rows = [
        fvqa("good"),
        fvqa("no-image", images=None),
        fvqa("bad-json", reward_model=reward(candidate_answers="[oops")),
        fvqa("good"),
        fvqa("torn", images=[{"bytes": jpeg()[:300], "path": None}]),
        fvqa("by-path", images=[{"bytes": None, "path": "pictures/a.jpg"}]),
        fvqa("gone", images=[{"bytes": None, "path": "pictures/none.jpg"}]),
        fvqa("no-answer", reward_model=reward(ground_truth=" ")),
        fvqa("no-question", prompt=[{"role": "user", "content": "<image>"}]),
        fvqa("empty", images=[{"bytes": None, "path": None}]),
    ]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(jpeg(7))
    path = write_parquet(rows, tmp_path / "train.parquet")
    counts = convert("mmsearch-r1", path, tmp_path / "out" / "set.array_record", show_progress=False)
    good, by_path = read_rows(tmp_path / "out" / "set.array_record")
    assert (good.id, good.question, good.answers) == ("good", "Which flag is it?", ("Peru", "Republic of Peru"))
    assert (good.image, good.category, good.search_required) == (jpeg(4), "flags", None)
    assert good.provenance == {
        "source": "mmsearch-r1",
        "row": "1",
        "data_source": "fvqa_train",
        "split": "train",
        "index": "3",
    }
    assert by_path.image == jpeg(7)
    reasons = refused(tmp_path / "out")
    assert counts.rejected["the image is damaged"] == counts.rejected["no image can be read"] == 1
    assert (counts.read, counts.written, counts.rejected.total()) == (10, 2, 8)
    expected = {
        2: "the prompt has 1 image marks, but there are 0 images",
        3: "not JSON",
        4: "already used by row 1",
        5: "damaged",
        7: "none.jpg",
        8: "there is no answer",
        9: "no question",
        10: "an image is",
    }
    assert reasons.keys() == expected.keys()
    assert all(text in reasons[row] for row, text in expected.items()), reasons


def test_search_r1_rows_are_text_with_several_answers(tmp_path):
    convert("search-r1", search_r1(tmp_path / "test.parquet"), tmp_path / "rows.parquet", show_progress=False)
    (found,) = read_rows(tmp_path / "rows.parquet")
    assert (found.id, found.question, found.answers, found.image) == ("nq-test-0", "Who?", ("He", "Him"), "")


def test_verl_rows_keep_their_whole_question(tmp_path):
    row = fvqa("v", reward_model={"style": "rule", "ground_truth": "72"}, data_id=None)
    convert("verl", write_parquet([row], tmp_path / "a.parquet"), tmp_path / "rows.tar", show_progress=False)
    (found,) = read_rows(tmp_path / "rows.tar")
    assert (found.id, found.question, found.answers) == ("fvqa_train-train-3", USER, ("72",))


def sharegpt(turns=None, **changes):
    """A record in LLaMA-Factory's format, with whole prompts as in a rollout."""
    said = [{"from": "human", "value": "<image>" + first_turn_prompt("Where?")}]
    for turn in turns or conversation():
        said.append({"from": "gpt", "value": turn.text})
        if turn.observation:
            prompt = later_prompt(parse_turn(turn.text).action)
            said.append({"from": "observation", "value": turn.observation + prompt})
    return {"conversations": said, "images": ["a.jpg"], "system": "Be brief."} | changes


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_sharegpt_conversations_lose_the_prompts_that_the_renderer_writes_anew(ending, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    plain = [{"role": "user", "content": "<image>Which flag?"}, {"role": "assistant", "content": "Peru's"}]
    talk = [*plain, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"}]
    records = [
        sharegpt(),
        {"id": "plain", "messages": plain, "images": "a.jpg"},
        {"messages": talk},
        {"messages": plain[:1]},
        sharegpt(turns=(conversation()[0], ConversationTurn("<answer>Lima</answer>"))),
        {"messages": plain[::-1]},
        7,
        sharegpt(conversations=[]),
    ]
    path = tmp_path / f"set{ending}"
    path.write_text("\n".join(map(json.dumps, records)) if ending == ".jsonl" else json.dumps(records))
    counts = convert("sharegpt", path, tmp_path / "rows.jsonl", show_progress=False)
    first, second = read_rows(tmp_path)
    assert (first.question, first.answers, first.search_required) == ("Where?", ("Lima",), True)
    assert [(t.text, t.observation) for t in first.turns] == [(t.text, t.observation) for t in conversation()]
    assert (second.question, second.answers, second.turns, second.image) == ("Which flag?", ("Peru's",), (), jpeg())
    assert counts.rejected.total() == 6 and refused(tmp_path).keys() == {3, 4, 5, 6, 7, 8}


def search_r1(path):
    """Writes one row in the format of Search-R1's Parquet files."""
    row = {
        "data_source": "nq",
        "ability": "fact-reasoning",
        "extra_info": {"split": "test", "index": 0},
        "prompt": [
            {"role": "user", "content": "Use <search>. For example <answer> Beijing </answer>. Question: Who?\n"}
        ],
        "reward_model": {"style": "rule", "ground_truth": {"target": ["He", "Him"]}},
    }
    return write_parquet([row], path)


@pytest.mark.parametrize("ending", sorted(FORMATS))
@pytest.mark.parametrize("source", ["mmsearch-r1", "search-r1", "verl", "sharegpt"])
def test_every_source_survives_every_format_and_the_way_back(source, ending, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    path = tmp_path / ("talk.json" if source == "sharegpt" else "a.parquet")
    if source == "sharegpt":
        path.write_text(json.dumps([sharegpt()]))
    elif source == "search-r1":
        search_r1(path)
    else:
        write_parquet([fvqa("a"), fvqa("bc", image_urls=None)], path)
    convert(source, path, tmp_path / "direct.jsonl", show_progress=False)
    convert(source, path, tmp_path / f"there{ending}", show_progress=False)
    convert("rows", tmp_path / f"there{ending}", tmp_path / "back.jsonl", show_progress=False)
    rows = read_rows(tmp_path / "direct.jsonl")
    assert rows and read_rows(tmp_path / f"there{ending}") == rows == read_rows(tmp_path / "back.jsonl")


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_our_own_rows_go_from_format_to_format_unchanged(ending, tmp_path):
    rows = [full_row(f"r{i}", jpeg(i)) for i in range(3)]
    write_rows([row.__class__(**{**vars(row), "more_images": ()}) for row in rows], tmp_path / f"a{ending}")
    for to in FORMATS:
        convert("rows", tmp_path / f"a{ending}", tmp_path / f"b{to}", show_progress=False)
        assert read_rows(tmp_path / f"b{to}") == read_rows(tmp_path / f"a{ending}")


def test_a_set_without_one_usable_row_is_an_error(tmp_path):
    path = write_parquet([fvqa("a", images=None)], tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"none of 1 records .* is a usable row: see .*rejected-rows.jsonl.jsonl"):
        convert("mmsearch-r1", path, tmp_path / "rows.jsonl", show_progress=False)
    assert not (tmp_path / "rows.jsonl").exists()
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    for source, name, problem in (
        ("verl", "b.parquet", "damaged or not a Parquet"),
        ("verl", "c.parquet", "no Parquet file at"),
        ("sharegpt", "b.parquet", "is not JSON"),
        ("other", "a.parquet", "unknown source 'other', expected one of"),
    ):
        with pytest.raises(DataError, match=problem):
            convert(source, tmp_path / name, tmp_path / "rows.jsonl", show_progress=False)
    assert len(SOURCES) == 6


class Trap:
    """Content of a malicious cache: unpickling it would create a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_names_a_function_is_refused_and_not_run(tmp_path):
    path = tmp_path / "cache.pkl"
    path.write_bytes(pickle.dumps({"a": Trap(str(tmp_path / "sprung"))}))
    with pytest.raises(DataError, match=r"is refused \(it names posix.mkdir\)"):
        pickles.load_plain(path)
    assert not (tmp_path / "sprung").exists()
    for content in (pickle.dumps({"a": 1})[:-3], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged|refused"):
            pickles.load_plain(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_cache_of_plain_values_becomes_json_lines(protocol, tmp_path):
    entry = {"tool_returned_web_title_list": ["Peru", "Lima"], "tool_returned_images_urls": ["https://a", None]}
    uneven = entry | {"tool_returned_images_urls": ["https://a"]}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"fvqa_1": entry, "fvqa_2": None, 3: uneven}, protocol))
    counts = convert_cache(tmp_path / "c.pkl", tmp_path / "cache.jsonl")
    assert (counts.read, counts.written, counts.rejected.total()) == (3, 1, 2)
    assert json.loads((tmp_path / "cache.jsonl").read_text()) == {
        "data_id": "fvqa_1",
        "results": [{"title": "Peru", "image_url": "https://a"}, {"title": "Lima", "image_url": None}],
    }
    assert refused(tmp_path).keys() == {2, 3}


@pytest.mark.parametrize("odd", ["half \ud83d", b"bytes", 3, {1, 2}])
def test_an_entry_of_a_cache_that_no_file_can_hold_is_set_aside(odd, tmp_path):
    entry = {"tool_returned_web_title_list": ["Peru"], "tool_returned_images_urls": ["https://a"]}
    entries = {"sound": entry, "title": entry | {"tool_returned_web_title_list": [odd]}}
    entries["url"] = entry | {"tool_returned_images_urls": [odd]}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(entries))
    counts = convert_cache(tmp_path / "c.pkl", tmp_path / "cache.jsonl")
    assert (counts.read, counts.written, counts.rejected.total()) == (3, 1, 2)
    assert all("must be texts in UTF-8" in reason for reason in refused(tmp_path).values())


def test_each_conversion_keeps_its_own_list_of_rejected_records(tmp_path):
    bad, sound = fvqa("bad", images=None), fvqa("sound")
    first = write_parquet([bad, sound], tmp_path / "first.parquet")
    second = write_parquet([sound, bad, fvqa("odd", data_id="odd", prompt=[])], tmp_path / "second.parquet")
    convert("verl", first, tmp_path / "a.jsonl", show_progress=False)
    convert("verl", second, tmp_path / "a.parquet", show_progress=False)
    assert refused(tmp_path, "a.jsonl").keys() == {1} and refused(tmp_path, "a.parquet").keys() == {2, 3}
    convert("verl", write_parquet([sound], first), tmp_path / "a.jsonl", show_progress=False)
    assert not (tmp_path / "rejected-a.jsonl.jsonl").exists() and refused(tmp_path, "a.parquet").keys() == {2, 3}
