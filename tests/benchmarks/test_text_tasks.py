"""Pages of a manual become tagged words, pairs and questions."""

from xml.etree import ElementTree

import pytest

pytest.importorskip("sklearn")

from benchmarks.text_tasks.baselines import PHRASE
from benchmarks.text_tasks.data import CLASSES, PARAGRAPH, marked, pair_rows, paragraphs, question_rows, tag_rows, tagged

PAGE = """<page xmlns="http://projectmallard.org/1.0/"><title>Sound</title>
<p>Open the <gui>Activities</gui>
  overview and start typing <gui>Sound Settings</gui>.</p>
<p>Click <gui>Sound Settings</gui> to open the panel, or press <keyseq><key>Alt</key><key>F2</key></keyseq>.</p>
<p>Edit <file>/etc/<var>name</var></file>, then leave the room quietly and close the door.</p></page>"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.page"
    path.write_text(PAGE)
    return paragraphs(path)


def test_markup_becomes_tags(page):
    words = [tuple(word) for word in tagged(page[0])]
    assert words[2:4] == [("Activities", "B-gui"), ("overview", "O")] and words[-3:] == [
        ("Sound", "B-gui"),
        ("Settings", "I-gui"),
        (".", "O"),
    ]
    assert [word for word in tagged(page[1]) if word.tag.endswith("key")] == [("Alt", "B-key"), ("F2", "B-key")]
    assert {tag for row in tag_rows({"p": page}) for tags in row["tags"] for tag in tags} <= set(CLASSES)


def test_marked_parts_are_where_they_say(page):
    for own, element in zip(page, ElementTree.fromstring(PAGE).iter(PARAGRAPH), strict=True):
        text, marks = marked(own)
        assert text == " ".join("".join(element.itertext()).split())
        assert [text[mark.start : mark.end] for mark in marks if mark.kind == "gui"] == [
            " ".join(gui.text.split()) for gui in element.iter(PARAGRAPH[:-1] + "gui")
        ]


def test_questions_blot_out_a_name_that_stands_elsewhere(page):
    rows = list(question_rows({"p": page}))
    assert [row["question"] for row in rows] == [
        "Open the Activities overview and start typing ___.",
        "Click ___ to open the panel, or press AltF2.",
    ]
    for row in rows:
        (answer,) = row["answers"]
        assert row["context"][answer["answer_start"] :].startswith("Sound Settings") and answer["text"] == "Sound Settings"
        assert row["question"].replace("___", answer["text"]) not in row["context"]


def test_pairs_are_neighbours_or_of_other_pages(tmp_path):
    pages = {}
    for number in range(30):
        path = tmp_path / f"{number}.page"
        path.write_text(PAGE.replace("<p>", f"<p>On page {number}: "))
        pages[path.stem] = paragraphs(path)
    texts = {name: [marked(own)[0] for own in found] for name, found in pages.items()}
    rows = list(pair_rows(pages))
    assert len(rows) == 60 and {row["label"] for row in rows} == {"next", "other"}
    for row in rows:
        own = texts[row["key"].partition("/")[0]]
        assert row["b"] == own[own.index(row["a"]) + 1] if row["label"] == "next" else row["b"] not in own
    assert rows == list(pair_rows(pages))


def test_phrases_with_capitals_are_found():
    assert PHRASE.findall("open Sound Settings, then Wi-Fi") == ["Sound Settings", "Wi-Fi"]
