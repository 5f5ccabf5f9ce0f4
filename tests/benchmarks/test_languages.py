"""The split is by page, what was left in English is no other language, and recipes differ in their start alone."""

import json

import pytest

from benchmarks.languages import data, run

PAGE = '<page xmlns="http://projectmallard.org/1.0/"><title>T</title><p>{}</p><section><p>{} <em>{}</em></p></section></page>'


def write_pages(root, language, texts):
    for number, text in enumerate(texts):
        path = root / language / "help" / f"{number}.page"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE.format(text, "Short", "x"), encoding="utf-8")


def test_paragraphs_are_chosen_once_and_only_where_they_are_translated(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FEWEST", 2)
    english = ["A first paragraph in English.", "A second paragraph\n   in English.", "A first paragraph in English, longer."]
    write_pages(tmp_path, "C", english)
    write_pages(tmp_path, "de", ["Ein erster Absatz auf Deutsch.", "Ein zweiter Absatz auf Deutsch.", english[2]])
    write_pages(tmp_path, "tr", ["Tek bir paragraf, baska yok.", *english[1:]])
    kept = data.chosen(list(data.paragraphs(tmp_path)))
    assert [(x.language, x.text) for x in kept] == [
        ("C", "A first paragraph in English."),
        ("C", "A second paragraph in English."),
        ("de", "Ein erster Absatz auf Deutsch."),
        ("de", "Ein zweiter Absatz auf Deutsch."),
    ]
    assert {x.page for x in kept} == {"help/0.page", "help/1.page"}


def test_a_page_is_on_one_side_in_all_languages_and_the_shares_are_kept():
    pages = [f"help/{number}.page" for number in range(4000)]
    splits = [data.split_of(page) for page in pages]
    assert splits == [data.Paragraph("de", page, 3, "").split for page in pages]
    assert splits.count("test") / 4000 == pytest.approx(0.2, abs=0.02) and splits.count("val") / 4000 == pytest.approx(0.05, abs=0.01)


def test_lists_hold_the_beginnings_of_the_wanted_splits(tmp_path):
    kept = [data.Paragraph("de", f"help/{number}.page", 0, "x" * 30) for number in range(40)]
    lines = run.read(data.write_list(kept, tmp_path / "list.jsonl", 20, ("train",)))
    assert lines and {len(line["text"]) for line in lines} == {20} and {line["split"] for line in lines} == {"train"}
    assert [line["key"] for line in lines] == [f"de/{x.page.removesuffix('.page')}/000" for x in kept if x.split == "train"]


def test_n_grams_tell_what_letters_tell(tmp_path):
    texts = {"a": "aab aba baa aab abba", "b": "xyx yxy xxy yyx xyxy"}
    lines = [{"text": text, "label": label, "split": split} for label, text in texts.items() for split in ("train", "val", "test")] * 5
    (tmp_path / "beginnings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.score_n_grams(tmp_path)["accuracy"] == 1.0
    assert run.score_trivial(tmp_path)["accuracy"] == 0.5


def test_from_scratch_and_pretrained_differ_in_their_start_alone(tmp_path):
    scratch, pretrained = run.recipe(tmp_path, None, 2), run.recipe(tmp_path, "model", 2)
    assert pretrained["model"]["init_args"]["encoder"]["init_args"] == {"folder": "model"}
    assert scratch["model"]["init_args"]["encoder"]["class_path"] == "multimodal.nn.Encoder"
    for config in (scratch, pretrained):
        config["model"]["init_args"].pop("encoder")
        next(iter(config["model"]["init_args"]["modalities"].values()))["init_args"].pop("embed")
    assert scratch == pretrained and scratch["trainer"]["max_epochs"] == 2
