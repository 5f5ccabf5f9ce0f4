"""Files of miditok that are damaged, hostile or not supported."""

import json
import sys
from pathlib import Path

import pytest

from multimodal.tokenizers.midi import MiditokTokenizer


def config_of(path: str) -> dict:
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: [], "it must be an object with tokenization, config"),
        (lambda file: file | {"config": 3}, "it must be an object with tokenization, config"),
        (lambda file: file | {"tokenization": "MIDILike"}, "tokenization 'MIDILike' is not supported; REMI, TSD, CPWord, Octuple are"),
        (lambda file: file | {"tokenization": "TokenizerConfig"}, "tokenization 'TokenizerConfig' is not supported"),
        (lambda file: file | {"encode": "os.system", "__class__": 1}, r"unknown entries \['__class__', 'encode'\]"),
        (lambda file: file | {"config": file["config"] | {"kwargs_": 1}}, r"unknown entries \['kwargs_'\] of config"),
        (
            lambda file: file | {"config": file["config"] | {"additional_params": {"pitch_range": [0, 1]}}},
            "config.additional_params must be",
        ),
        (lambda file: file | {"config": file["config"] | {"num_tempos": 10**9}}, "config.num_tempos holds 1000000000; the limit is 16384"),
        (lambda file: file | {"config": file["config"] | {"num_tempos": float("nan")}}, "config.num_tempos holds nan"),
        (lambda file: file | {"config": file["config"] | {"use_tempos": "yes"}}, "config.use_tempos must be of type bool, got 'yes'"),
        (
            lambda file: file | {"config": file["config"] | {"beat_res": {"0_16000": 16000}}},
            "config.beat_res and config.time_signature_range: more",
        ),
        (
            lambda file: file | {"config": file["config"] | {"beat_res": {"0_9999999999": 8}}},
            "config.beat_res and config.time_signature_range: more",
        ),
        (lambda file: file | {"config": file["config"] | {"beat_res": {"x": 8}}}, "miditok cannot build it"),
        (lambda file: file | {"config": file["config"] | {"pitch_range": [100, 20]}}, "pitch_range"),
        (lambda file: file | {"config": file["config"] | {"use_rests": True}}, "use_pitch_intervals and config.use_rests must be false"),
        (
            lambda file: file | {"config": file["config"] | {"additional_params": {"max_bar_embedding": 9}}},
            "max_bar_embedding must be null for REMI",
        ),
        (
            lambda file: file | {"config": file["config"] | {"use_programs": True, "one_token_stream_for_programs": False}},
            "config.one_token_stream_for_programs must be true where use_programs is",
        ),
        (
            lambda file: file | {"config": file["config"] | {"use_pitchdrum_tokens": True, "drums_pitch_range": [0, 127]}},
            r"config.drums_pitch_range \[0, 127\] must lie within pitch_range",
        ),
        (lambda file: file | {"_vocab_base": {}}, r"a trained tokenizer has one field, and the entries _vocab_base, _model"),
    ],
)
def test_what_a_file_must_not_say_is_named(change, said, paths, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(change(config_of(paths["REMI"]))))
    with pytest.raises(ValueError, match=rf"{path} is no tokenizer.json of miditok that can be read: .*{said}"):
        MiditokTokenizer(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_vocab_base": {"Pitch_x": 3}}, r"_vocab_base must give tokens that config makes ids of their own; \['Pitch_x'\] are none"),
        ({"_vocab_base": {"PAD_None": -1}}, "_vocab_base must be an object of ids"),
        ({"_vocab_base_byte_to_token": {"!": "Pitch_x"}}, "_vocab_base_byte_to_token must name tokens of _vocab_base"),
        ({"_model": {}}, "_model must be text"),
        ({"_model": "{}"}, "miditok cannot build it: KeyError"),
        ({"_vocab_base_byte_to_token": {}}, "miditok cannot build it: KeyError"),
    ],
)
def test_damaged_models_are_refused(change, said, trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(config_of(trained["BPE bar"]) | change))
    with pytest.raises(ValueError, match=rf"{path} is no tokenizer.json of miditok that can be read: .*{said}"):
        MiditokTokenizer(str(path))


def test_models_that_lose_notes_are_refused(trained):
    with pytest.raises(ValueError, match="_model must be one of BPE, Unigram"):
        MiditokTokenizer(trained["WordPiece bar"])


def test_files_that_are_none_are_refused(tmp_path, monkeypatch, paths):
    with pytest.raises(ValueError, match=r"no tokenizer at .*tokenizer.json: give the path of a tokenizer.json of miditok"):
        MiditokTokenizer(str(tmp_path))
    for content in (b"\xff", b"{", b"[" * 100_000):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"tokenizer.json is no tokenizer.json"):
            MiditokTokenizer(str(tmp_path))
    monkeypatch.setattr("multimodal.tokenizers.midi.miditok_load.MAX_BYTES", 10)
    with pytest.raises(ValueError, match="the limit is 10"):
        MiditokTokenizer(paths["REMI"])
    monkeypatch.setitem(sys.modules, "miditok", None)
    with pytest.raises(ValueError, match="can only be read where the package miditok is installed: pip install miditok"):
        MiditokTokenizer(paths["REMI"])
