"""A checkpoint becomes a model whole, or not at all."""

import pytest
import torch
from safetensors.torch import save_file

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.importing import load_exactly
from multimodal.pretrained.registry import format_of


def changed(foreign, change) -> str:
    loaded = torch.load(foreign)
    change(loaded["model"])
    torch.save(loaded, foreign)
    return foreign


def test_the_imported_model_is_the_one_that_was_stored(foreign, image_model, images):
    imported = import_checkpoint(foreign)
    (model,) = imported.parts.values()
    torch.testing.assert_close(model(images), image_model(images), rtol=0, atol=0)
    assert not model.training
    assert model.settings.origin.family == "beit"


def test_the_report_accounts_for_every_tensor(foreign):
    report = import_checkpoint(foreign).report
    assert report.num_read == report.num_used + len(report.ignored)
    names = tuple(f"blocks.{i}.attn.relative_position_index" for i in range(3))
    assert report.ignored == tuple((name, "an index that is computed, not learned") for name in names)
    text = "\n".join(report.lines())
    assert "MIT" in text
    assert report.origin.sha256 in text


def test_the_hash_is_that_of_the_file_and_can_be_asked_for(foreign):
    import hashlib

    digest = hashlib.sha256(foreign.read_bytes()).hexdigest()
    assert import_checkpoint(foreign, sha256=digest.upper()).report.origin.sha256 == digest
    with pytest.raises(ValueError, match=r"beit.pth has the sha256 .* not 00ff: it is not the file you want"):
        import_checkpoint(foreign, sha256="00ff")


def test_a_tensor_too_many_is_refused_by_name(foreign):
    changed(foreign, lambda state: state.update(surprise=torch.zeros(3)))
    with pytest.raises(ValueError, match=r"beit.pth: 1 tensors have no place in beit \(unilm\): surprise"):
        import_checkpoint(foreign)


def test_a_missing_tensor_is_refused_by_name(foreign):
    changed(foreign, lambda state: state.pop("blocks.1.norm2.bias"))
    with pytest.raises(ValueError, match=r"1 tensors are missing: blocks.1.norm2.bias"):
        import_checkpoint(foreign)


def test_a_tensor_of_another_size_is_refused_by_name(foreign):
    changed(foreign, lambda state: state.update({"blocks.1.norm2.bias": torch.zeros(7)}))
    with pytest.raises(ValueError, match=r"encoder.blocks.1.norm2.bias is \(7,\) instead of \(32,\)"):
        import_checkpoint(foreign)


def test_another_family_than_the_one_asked_for_is_refused(foreign):
    with pytest.raises(ValueError, match="do not have the names of beit in the layout of transformers"):
        import_checkpoint(foreign, family="beit", layout="transformers")
    with pytest.raises(ValueError, match="no format nonsense"):
        import_checkpoint(foreign, family="nonsense")


def test_tensors_of_no_family_are_refused(tmp_path):
    save_file({"linear.weight": torch.zeros(2, 2)}, tmp_path / "mine.safetensors")
    with pytest.raises(
        ValueError, match=r"mine.safetensors: its 1 tensors \(linear.weight ...\) do not have the names of any known family"
    ):
        import_checkpoint(tmp_path / "mine.safetensors")


def test_half_precision_weights_become_float32(foreign, image_model, images):
    changed(foreign, lambda state: state.update({name: x.half() for name, x in state.items()}))
    model = import_checkpoint(foreign).parts[""]
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model(images), image_model(images), rtol=0, atol=0.05)


def test_a_module_is_loaded_wholly_or_not_at_all():
    module = torch.nn.Linear(2, 3)
    before = module.weight.clone()
    with pytest.raises(ValueError, match=r"bias is missing; extra is left over"):
        load_exactly(module, {"weight": torch.zeros(3, 2), "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"weight is torch.int64"):
        load_exactly(module, {"weight": torch.zeros(3, 2, dtype=torch.int64), "bias": torch.zeros(3)})
    assert torch.equal(module.weight, before)


def test_an_unknown_setting_is_refused(foreign):
    with pytest.raises(ValueError, match="statistics"):
        import_checkpoint(foreign, options=ImportOptions(settings={"statistics": "mine"}))


def test_export_and_import_are_inverse(foreign, image_model):
    theirs = torch.load(foreign)["model"]
    model = import_checkpoint(foreign).parts[""]
    assert isinstance(model, PretrainedModel)
    back = format_of("beit", "unilm").write(model).tensors
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], x) for name, x in theirs.items())
