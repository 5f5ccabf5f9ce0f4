"""Files of miditok, and pieces to read with them."""

import miditok
import pytest

from benchmarks.demo.tunes import read_chorales, read_tunes
from multimodal.tokenizers.midi import MiditokTokenizer, read_score, write_notes, write_score
from tests.tokenizers.midi.miditok_kinds import KINDS, PLAIN, theirs
from tests.tokenizers.midi.real import real_files


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("miditok")
    found = {name: folder / f"{number}.json" for number, name in enumerate(KINDS)}
    for name, path in found.items():
        theirs(name).save(path)
    return {name: str(path) for name, path in found.items()}


@pytest.fixture(scope="module")
def ours(paths) -> dict[str, MiditokTokenizer]:
    return {name: MiditokTokenizer(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def pieces() -> dict[str, bytes]:
    """Tunes, a chorale, a string quintet and a piece for piano; the first notes of all lie in the first bar."""
    found = {piece.name: write_notes(piece.notes) for piece in (*read_tunes(3), *read_chorales(1))}
    real = real_files()
    return found | {"quintet": real["omr/k525short"], "piano": write_score(read_score(real["midi/testPrimitive/test09"])[:600])}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pieces) -> dict[str, str]:
    """A file of each kind of trained model."""
    folder = tmp_path_factory.mktemp("trained")
    files = [folder / f"{number}.mid" for number in range(len(pieces))]
    for file, piece in zip(files, pieces.values(), strict=True):
        file.write_bytes(piece)
    found = {}
    for model, split in (("BPE", "bar"), ("BPE", "no"), ("Unigram", "beat"), ("WordPiece", "bar")):
        own = miditok.REMI(miditok.TokenizerConfig(encode_ids_split=split, **PLAIN))
        own.train(vocab_size=len(own) + 150, model=model, files_paths=files)
        found[f"{model} {split}"] = str(folder / f"{model} {split}.json")
        own.save(found[f"{model} {split}"])
    return found
