"""A saved model comes back exactly; a damaged folder says what is wrong."""

import json

import pytest
import torch

import multimodal
from multimodal.pretrained import PretrainedModel, from_pretrained, load_embed, load_encoder, load_head
from multimodal.pretrained.folder import load

from .conftest import image_settings


@pytest.fixture
def folder(image_model, tmp_path):
    image_model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_saved_model_comes_back_exactly(folder, image_model, images):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for loaded in (from_pretrained(folder), PretrainedModel.from_pretrained(folder), multimodal.from_pretrained(str(folder))):
        assert torch.equal(loaded(images), image_model(images))
        assert not loaded.training


def test_saving_again_writes_the_same_bytes(folder, tmp_path):
    from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_the_parts_can_be_trained_on(folder, image_model, images):
    encoder, embed, head = load_encoder(str(folder)), load_embed(str(folder), "image"), load_head(str(folder), "classes")
    assert encoder.training
    assert embed.training
    assert torch.equal(head.proj.weight, image_model.heads["classes"].proj.weight)
    tokens = embed.tokens(images, None)
    encoded = encoder.eval()(embed(tokens), tokens.item, tokens.coordinates)
    torch.testing.assert_close(encoded.tokens.unflatten(0, (3, 9)), image_model.forward_features(images)[:, 1:])


def test_a_part_that_is_not_there_is_named(folder):
    with pytest.raises(ValueError, match=r"has no 'sound' among its embeds: \['image'\]"):
        load_embed(str(folder), "sound")
    with pytest.raises(ValueError, match=r"has no 'tokens' among its heads: \['classes'\]"):
        load_head(str(folder), "tokens")


def test_a_missing_folder_or_file_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"config.json not found"):
        load(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model in .*saved: model.safetensors not found"):
        from_pretrained(folder)


def test_a_cut_off_weight_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        from_pretrained(folder)


def test_a_config_that_does_not_fit_the_weights_is_refused(folder):
    edit_config(folder, lambda config: config["encoder"]["init_args"].update(depth=4))
    with pytest.raises(ValueError, match=r"does not match the config.json beside it: .* encoder.blocks.3.*is missing"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "path", ["subprocess.Popen", "multimodal.pretrained.folder.Path", "multimodal.recorded.partial", "multimodal.nn.nothing", "os.system"]
)
def test_a_config_cannot_choose_what_runs(folder, path):
    edit_config(folder, lambda config: config["embeds"]["image"].update(class_path=path))
    with pytest.raises(ValueError, match="a saved model names"):
        from_pretrained(folder)


def test_damaged_and_strange_configs_are_refused(folder):
    edit_config(folder, lambda config: config.update(surprise=1))
    with pytest.raises(ValueError, match=r"config.json: unknown settings \['surprise'\]"):
        from_pretrained(folder)
    edit_config(folder, lambda config: (config.pop("surprise"), config.update(format_version=99)))
    with pytest.raises(ValueError, match="saved by a later version"):
        from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json"):
        load(folder)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    tied = image_settings().to_json()
    tied["tied"] = {"heads.classes.norm.weight": "encoder.blocks.0.norm1.weight"}
    model = PretrainedModel(type(image_settings()).from_json(tied))
    assert model.heads["classes"].norm.weight is model.encoder.blocks[0].norm1.weight
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.heads["classes"].norm.weight is loaded.encoder.blocks[0].norm1.weight


def test_the_card_tells_licence_and_hash(foreign, tmp_path):
    from_pretrained(foreign).save_pretrained(tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text()
    assert "Licence of the published weights: MIT" in card
    assert "sha256" in card
    assert "license: mit" in card


def test_a_name_that_is_nowhere_says_that_nothing_is_downloaded():
    with pytest.raises(ValueError, match="Nothing is downloaded"):
        from_pretrained("google/vit-base-patch16-224")


def test_only_a_name_on_the_hub_is_downloaded(folder, image_model, images, monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append(name)
        assert not any(pattern in ("*", "*.py", "*.pkl") for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert torch.equal(from_pretrained("hf-hub:someone/beit")(images), image_model(images))
    assert asked == ["someone/beit"]


def test_a_name_that_the_hub_does_not_have_is_said(monkeypatch):
    def snapshot(name, allow_patterns):
        raise OSError("no such thing\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(ValueError, match=r"hf-hub:someone/nothing cannot be downloaded: no such thing$"):
        from_pretrained("hf-hub:someone/nothing")
