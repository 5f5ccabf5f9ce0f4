"""``tokenizer.json`` of miditok: what it may say, which is checked before miditok sees it."""

from __future__ import annotations

import importlib
import inspect
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FILE_NAME = "tokenizer.json"
KINDS = ("REMI", "TSD", "CPWord", "Octuple")
MODELS = ("BPE", "Unigram")
SETTINGS = ("tokenization", "config")
TRAINED = ("_vocab_base", "_model", "_vocab_base_byte_to_token")
"""Entries of a trained tokenizer, in the order in which miditok has to read them."""
IGNORED = ("miditok_version", "symusic_version", "hf_tokenizers_version", "has_bpe")
ADDITIONAL = ("max_bar_embedding", "use_bar_end_tokens", "add_trailing_bars")
MAX_BYTES = 2**25
MAX_NUMBER = 2**14
"""Of a setting; pitch bends reach to 8192."""
MAX_PLACES = 2**16
"""Steps of the longest duration, and of the longest bar."""
UNIGRAM_SUFFIX = "-unigram"


def load_miditok(file: Path) -> tuple[bytes, Any]:
    """Return the content of a file, and the tokenizer of miditok that it says.

    miditok makes attributes of whatever a file says, so only known entries reach it. Nothing is downloaded or executed.

    Raises:
        ValueError: miditok is not installed, there is no such file, or it says what is not known, not read here, or out of range.
    """
    try:
        miditok = importlib.import_module("miditok")
    except ImportError as error:
        raise ValueError(f"{file} can only be read where the package miditok is installed: pip install miditok") from error
    if not file.is_file():
        raise ValueError(f"no tokenizer at {file}: give the path of a {FILE_NAME} of miditok, or of the folder that holds one.")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{file} has {size} bytes; the limit is {MAX_BYTES}.")
    content = file.read_bytes()
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no {FILE_NAME}: {error}") from error
    try:
        return content, _built(miditok, said)
    except Exception as error:  # of tokenizers, which raises Exception itself, and whatever miditok makes of odd settings
        reason = error if isinstance(error, _RefusedError) else f"miditok cannot build it: {error!r}"
        raise ValueError(f"{file} is no {FILE_NAME} of miditok that can be read: {reason}") from error


class _RefusedError(ValueError):
    """What is said of an entry of the file."""


def _built(miditok: Any, said: Any) -> Any:
    """Return the tokenizer of a file's entries."""
    if not isinstance(said, dict) or not isinstance(said.get("config"), dict):
        raise _RefusedError(f"it must be an object with {', '.join(SETTINGS)}.")
    kind = said.get("tokenization")
    if kind not in KINDS:
        raise _RefusedError(f"tokenization {kind!r} is not supported; {', '.join(KINDS)} are.")
    if unknown := sorted(said.keys() - {*SETTINGS, *TRAINED, *IGNORED}):
        raise _RefusedError(f"unknown entries {unknown}.")
    _check_config(kind, said["config"], inspect.signature(miditok.TokenizerConfig).parameters)
    own = _constructed(getattr(miditok, kind), {name: said[name] for name in SETTINGS})
    if own.config.use_programs != own.one_token_stream:
        raise _RefusedError("config.one_token_stream_for_programs must be true where use_programs is: an item is one sequence.")
    if trained := [name for name in TRAINED if name in said]:
        if len(trained) < len(TRAINED) or own.is_multi_voc:
            raise _RefusedError(f"a trained tokenizer has one field, and the entries {', '.join(TRAINED)}; there are {trained}.")
        _check_model(said, own)
        own = _constructed(getattr(miditok, kind), {name: said[name] for name in (*SETTINGS, *TRAINED)})
        _check_ids(own)
    return own


def _constructed(cls: type, entries: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings that a kind of tokens switches off
        copy = Path(folder) / FILE_NAME
        copy.write_text(json.dumps(entries))
        return cls(params=copy)


def _check_config(kind: str, config: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Look whether settings are known, of the right type and not so large that building takes the memory."""
    more = config.get("additional_params")
    if not isinstance(more, dict) or (more.keys() - {*ADDITIONAL}):
        raise _RefusedError(f"config.additional_params must be an object with entries of {', '.join(ADDITIONAL)}, got {more!r}.")
    if unknown := sorted(config.keys() - parameters.keys() - {"additional_params"}):
        raise _RefusedError(f"unknown entries {unknown} of config.")
    for name, value in config.items():
        for number in _numbers(value):
            if not abs(number) <= MAX_NUMBER:  # so is no NaN
                raise _RefusedError(f"config.{name} holds {number}; the limit is {MAX_NUMBER}.")
        expected = type(parameters[name].default) if name in parameters else dict
        if expected in (bool, int) and type(value) is not expected:
            raise _RefusedError(f"config.{name} must be of type {expected.__name__}, got {value!r}.")
    _check_places(config)
    if config.get("use_pitch_intervals") or config.get("use_rests"):
        raise _RefusedError("config.use_pitch_intervals and config.use_rests must be false: there a token says nothing by itself.")
    if kind == "REMI" and more.get("max_bar_embedding") is not None:
        raise _RefusedError("config.additional_params.max_bar_embedding must be null for REMI: miditok cannot decode numbers of bars.")
    low, high = config.get("pitch_range", (0, 127))
    drums = config.get("drums_pitch_range", (low, high))
    if config.get("use_pitchdrum_tokens") and not low <= drums[0] <= drums[1] <= high:
        raise _RefusedError(f"config.drums_pitch_range {drums} must lie within pitch_range {[low, high]}: miditok decodes no other.")


def _check_places(config: Mapping[str, Any]) -> None:
    """Look how many durations and positions there would be."""
    steps, metres = config.get("beat_res", {}), config.get("time_signature_range", {})
    if not isinstance(steps, dict) or not isinstance(metres, dict):
        raise _RefusedError("config.beat_res and config.time_signature_range must be objects.")
    longest = max([4, *_numbers(list(metres.values())), *(int(part) for name in steps for part in name.split("_"))])
    finest = max([1, *_numbers(list(steps.values()))])
    if longest * finest * max([4, *map(int, metres)]) // 4 > MAX_PLACES:
        raise _RefusedError(f"config.beat_res and config.time_signature_range: more than {MAX_PLACES} steps.")


def _numbers(value: Any) -> Iterator[float]:
    """Return the numbers anywhere in a setting."""
    if isinstance(value, (int, float)):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(part)


def _check_model(said: Mapping[str, Any], untrained: Any) -> None:
    """Look whether the entries of a trained tokenizer fit those of its config."""
    base, letters = said["_vocab_base"], said["_vocab_base_byte_to_token"]
    if not isinstance(base, dict) or not all(type(number) is int and 0 <= number <= MAX_PLACES for number in base.values()):
        raise _RefusedError(f"_vocab_base must be an object of ids from 0 to {MAX_PLACES}.")
    known = {*untrained.vocab, *(name + UNIGRAM_SUFFIX for name in untrained.special_tokens)}
    if strange := sorted(base.keys() - known) or len(set(base.values())) < len(base):
        raise _RefusedError(f"_vocab_base must give tokens that config makes ids of their own; {strange} are none.")
    if not isinstance(letters, dict) or not all(isinstance(token, str) and token in known for token in letters.values()):
        raise _RefusedError("_vocab_base_byte_to_token must name tokens of _vocab_base.")
    if not isinstance(said["_model"], str):
        raise _RefusedError("_model must be text.")
    model = json.loads(said["_model"])
    if model["model"]["type"] not in MODELS or model.get("normalizer") or model.get("post_processor"):
        raise _RefusedError(f"_model must be one of {', '.join(MODELS)}, without normalizer and post_processor.")


def _check_ids(own: Any) -> None:
    """Look whether the special tokens have the ids that miditok says they have."""
    vocabulary = own.vocab_model
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise _RefusedError("_model must have the ids from 0 on, without gaps.")
    for name in own.special_tokens:
        if name.endswith(UNIGRAM_SUFFIX):
            continue  # miditok looks for these by their letters
        letters = own._model.id_to_token(own.vocab[name])
        if not {*own._vocab_learned_bytes_to_tokens[letters]} <= {*own.special_tokens}:
            raise _RefusedError(f"_model has another token at {own.vocab[name]}, the id of {name} in _vocab_base.")
