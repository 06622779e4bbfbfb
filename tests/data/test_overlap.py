"""Near-duplicates between training and evaluation rows are found; merely similar rows are not."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmsearch_jax.commands import main as cli
from mmsearch_jax.data.overlap import find_overlap, image_hash, similarity, words
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows


def photograph(seed, size=(320, 240)):
    """Smooth shapes, as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def row(name, image, question="Which tower is it?"):
    return Row(name, image, question, ("x",), "", None)


@pytest.mark.parametrize("seed", range(8))
def test_the_hash_survives_resizing_and_compression_and_tells_others_apart(seed):
    image = photograph(seed)
    small = Image.open(io.BytesIO(encoded(image.resize((200, 131)), "JPEG", quality=40)))
    assert (image_hash(image) ^ image_hash(small)).bit_count() <= 4
    assert (image_hash(image) ^ image_hash(photograph(seed + 100))).bit_count() > 12


def test_the_hash_is_the_sign_of_horizontal_differences():
    grey = np.zeros((8, 9), np.uint8)
    grey[0, 1], grey[7, 8] = 200, 90
    bits = f"{image_hash(Image.fromarray(grey)):064b}"
    assert bits == "1" + "0" * 62 + "1"


def test_pairs_by_image_and_by_question():
    seen, other = photograph(1), photograph(2)
    evaluation = [row("e1", encoded(seen)), row("e2", encoded(other)), row("e3", "", "Who wrote Hamlet, the play?")]
    train = [
        row("t1", encoded(seen.resize((160, 120)), "JPEG"), "which TOWER is it"),
        row("t2", encoded(seen), "How high?"),
        row("t3", encoded(photograph(3))),
        row("t4", "", "The play Hamlet: who wrote?"),
        row("t5", "", "Who wrote Faust?"),
        row("t6", b"no image"),
    ]
    report = find_overlap(train, evaluation)
    assert [(p.train_id, p.eval_id, p.same_question) for p in report.pairs] == [
        ("t1", "e1", True),
        ("t2", "e1", False),
        ("t4", "e3", True),
    ]
    assert report.pairs[2].image_distance is None and report.pairs[1].image_distance == 0
    assert (report.train_rows, report.eval_rows, report.unreadable) == (6, 3, 1)


def test_words_know_diacritics_and_writing_without_spaces():
    assert words("Où est le CAFÉ?") == {"ou", "est", "le", "cafe"}
    assert words("哪一年?") == {"哪", "一", "年"}
    assert similarity(words("a b c"), words("b c d")) == pytest.approx(2 / 4)


def test_the_command_names_the_pairs_and_the_second_image_counts(tmp_path, capsys):
    image = encoded(photograph(1))
    # An exact copy is nearest, even if a near-duplicate follows.
    slightly = encoded(photograph(1).resize((90, 70)), "JPEG", quality=10)
    leak = dataclasses.replace(row("t1", encoded(photograph(5))), more_images=(image, slightly))
    write_rows([leak, row("t2", encoded(photograph(6)))], tmp_path / "train.array_record")
    write_rows([row("e1", image)], tmp_path / "eval.jsonl")
    out = tmp_path / "overlap.jsonl"
    paths = [str(tmp_path / "train.array_record"), str(tmp_path / "eval.jsonl"), "-o", str(out)]
    assert cli.main(["data", "overlap", *paths]) == 0
    assert "1 of 2 training rows share an image with 1 of 1 evaluation rows" in capsys.readouterr().out
    (pair,) = map(json.loads, out.read_text().splitlines())
    assert (pair["train_id"], pair["image_distance"]) == ("t1", 0)
    assert cli.main(["data", "overlap", *paths, "--max-distance", "99"]) == 2
    assert cli.main(["data", "overlap", str(tmp_path / "none.jsonl"), *paths[1:]]) == 2
