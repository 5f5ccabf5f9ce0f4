"""``multimodal predict`` with a filling: hidden notes are filled in, and whole playable files come back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal.batch import collate
from multimodal.cli import main
from multimodal.filling import Filling, IterativeDecoding
from multimodal.masking import MaskReplaceKeep
from multimodal.objectives import LatentTargets
from multimodal.tokenizers.midi import Column, CompoundTokenizer, read_score
from multimodal.training.filled_files import FilledFiles
from tests.workshop import ROOT, write_files

QUIET = ("--trainer.enable_progress_bar", "false")
MASKING = {
    "class_path": "multimodal.masking.FieldMasking",
    "init_args": {
        "masking": {
            "class_path": "multimodal.masking.IdRangeMasking",
            "init_args": {"field": "position", "lowest": 8, "highest": 15},
        },
        "fields": ["pitch"],
    },
}
MAX_NOTES = "--model.init_args.modalities.midi.init_args.transform.init_args.max_notes"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short pretraining on windows of 12 notes."""
    folder = tmp_path_factory.mktemp("music")
    write_files(folder)
    assert main(["shards", "write", str(folder / "tunes"), "--to", str(folder / "shards"), "--split", "folders"]) == 0
    small = ["--model.init_args.encoder.dim", "16", "--model.init_args.encoder.depth", "1", MAX_NOTES, "12"]
    data = ["--data.init_args.shards", str(folder / "shards"), "--data.init_args.num_workers", "0", "--data.init_args.batch_size", "4"]
    brief = ["--trainer.max_epochs", "1", "--trainer.callbacks", "null", *QUIET]
    config = ["--config", str(ROOT / "configs/pretrain/music.yaml")]
    assert main(["fit", *config, *small, *data, *brief, "--run", str(folder / "run")]) == 0
    return folder / "run"


def predict(run: Path, to: Path, *more: str, **settings) -> int:
    filling = {"masking": MASKING, "decoding": {"class_path": "multimodal.filling.IterativeDecoding", "init_args": {"steps": 3}}} | settings
    overlay = to.parent / f"{to.name}.yaml"
    overlay.write_text(
        json.dumps({"model": {"init_args": {"filling": {"class_path": "multimodal.filling.Filling", "init_args": filling}}}})
    )
    saved = ["--config", str(run / "config.yaml"), "--config", str(overlay), "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    return main(["predict", *saved, *QUIET, "--run", str(to), *more])


def files(folder: Path, extension: str = "mid") -> dict[str, Path]:
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob(f"*.{extension}"))}


def test_whole_files_come_back_with_only_what_was_hidden_changed(run, tmp_path, capsys):
    assert predict(run, tmp_path / "filled", MAX_NOTES, "1000", window=12, pictures=True) == 0
    written, pieces = files(tmp_path / "filled/predictions/midi"), files(run.parent / "tunes/test")
    assert set(written) == set(pieces) and len(written) == 4
    assert set(files(tmp_path / "filled/predictions/midi", "png")) == set(pieces)
    tokenizer, changed, hidden_notes, notes_of_all = CompoundTokenizer(), 0, 0, 0
    for key, path in written.items():
        ids = tokenizer.encode_score(read_score(pieces[key].read_bytes()))
        on_grid = tokenizer.decode_score(ids).notes
        found = read_score(path.read_bytes()).notes
        assert len(found) == len(ids) > 12, "the whole piece, not a window of it"
        hidden = ids[:, 1] >= 8
        assert torch.equal(found[~hidden], on_grid[~hidden])
        others = [column for column in Column if column != Column.PITCH]
        assert torch.equal(found[:, others], on_grid[:, others])
        assert found[:, Column.PITCH].min() >= 22 and found[:, Column.PITCH].max() <= 107
        changed += int((found != on_grid).any(1).sum())
        hidden_notes, notes_of_all = hidden_notes + int(hidden.sum()), notes_of_all + len(ids)
    assert changed > 0.5 * hidden_notes, "a model that learned nothing"
    assert f"predictions/midi: 4 files, {hidden_notes} of {notes_of_all} tokens filled in" in capsys.readouterr().out


def test_files_are_not_replaced_unless_wanted_are_the_same_in_any_batch_and_change_with_the_seed(run, tmp_path, capsys):
    def contents() -> dict[str, bytes]:
        return {key: path.read_bytes() for key, path in files(tmp_path / "filled").items()}

    assert predict(run, tmp_path / "filled") == 0
    first = contents()
    assert [len(read_score(data)) for data in first.values()] == [12] * 4, "without a window, what the transform reads"
    assert predict(run, tmp_path / "filled", "--seed_everything", "8") == 1
    assert "holds files already: give another folder with --run, or set overwrite" in capsys.readouterr().err
    assert contents() == first
    assert predict(run, tmp_path / "filled", "--data.init_args.batch_size", "1", overwrite=True) == 0
    assert contents() == first
    assert predict(run, tmp_path / "filled", "--seed_everything", "8", overwrite=True) == 0
    assert all(data != first[key] for key, data in contents().items())


def test_bad_settings_are_told_in_a_line(run, tmp_path, capsys):
    assert predict(run, tmp_path / "filled", allowed={"pitch": [90, 99]}) == 2
    assert "allowed for field 'pitch' is 90 to 99, where it has no id; it has 0 to 85" in capsys.readouterr().err


def test_ids_of_other_modalities_are_written_as_arrays_and_seen_by_each_other(make_model, mixed_samples, tmp_path):
    batch = collate(mixed_samples)
    model = make_model(filling=Filling(decoding=IterativeDecoding(1, temperature=0), modality="picture")).eval()
    writer = FilledFiles(model.filling, "picture", tmp_path / "picture")
    writer.write(model, batch)
    alone = {f"sample{number}": np.load(tmp_path / f"picture/sample{number}.npy") for number in (0, 2, 5, 7)}
    assert {ids.shape for ids in alone.values()} == {(16,)} and alone["sample0"].dtype == np.int64
    assert writer.summary().endswith("4 files, 32 of 64 tokens filled in")
    batch.items["pairs"].values.copy_(batch.items["pairs"].values.flip(0))
    logits = []
    head = model.modalities["picture"].head
    head.register_forward_hook(lambda module, args, output: logits.append(output[0].clone()))
    FilledFiles(model.filling, "picture", tmp_path / "again").write(model, batch)
    FilledFiles(model.filling, "picture", tmp_path / "without").write(model, collate(mixed_samples))
    assert not torch.allclose(logits[0], logits[1], atol=1e-5)


def test_samples_of_several_modalities_have_no_windows(make_model, mixed_samples, tmp_path):
    model = make_model(filling=Filling(modality="pairs", window=2, decoding=IterativeDecoding(2))).eval()
    with pytest.raises(ValueError, match="samples have picture beside 'pairs', which belong to no window"):
        FilledFiles(model.filling, "pairs", tmp_path).write(model, collate(mixed_samples))


def test_a_head_that_does_not_learn_is_refused(make_model):
    assert make_model(filling=Filling(modality="pairs")).modalities["pairs"].corruption.mask == MaskReplaceKeep().mask
    with pytest.raises(ValueError, match="'pairs' cannot be filled in: no objective lets its head learn"):
        make_model(filling=Filling(modality="pairs"), objectives=[LatentTargets])
    with pytest.raises(ValueError, match="set its modality to one of picture, pairs"):
        make_model(filling=Filling())
