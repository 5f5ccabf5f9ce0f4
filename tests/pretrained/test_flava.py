"""FLAVA: three encoders and their heads, against transformers."""

import json
from typing import NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from multimodal.pretrained import PretrainedModel, import_checkpoint
from multimodal.pretrained.registry import format_of
from tests.pretrained.text_parity import Ragged, check_accounts, check_close, randomized, shapes_of
from tests.pretrained.vision_parity import check_same, images, tensors_of

MEAN, STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
FORM = format_of("flava", "transformers")
WITHOUT = (*(f"flava.{name}_model.pooler" for name in ("image", "text", "multimodal")), "flava.logit_scale")


def tiny(size: int) -> transformers.FlavaConfig:
    common = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "layer_norm_eps": 1e-6}
    return transformers.FlavaConfig(
        image_config={"num_hidden_layers": 3, "image_size": size, "patch_size": 8, "vocab_size": 40, **common},
        text_config={"num_hidden_layers": 2, "vocab_size": 50, "max_position_embeddings": 20, **common},
        multimodal_config={"num_hidden_layers": 2, **common},
        hidden_size=32,
        projection_dim=24,
        image_codebook_config={"hidden_size": 8, "vocab_size": 40},
    )


class Case(NamedTuple):
    """A model of theirs, what it makes of a batch, and ours."""

    reference: transformers.FlavaForPreTraining
    parts: dict[str, PretrainedModel]
    pixels: Tensor
    texts: Ragged
    output: transformers.models.flava.modeling_flava.FlavaModelOutput


@pytest.fixture(params=[16, 32])
def case(request, tmp_path) -> Case:
    reference = randomized(transformers.FlavaForPreTraining(tiny(request.param)))
    reference.save_pretrained(tmp_path / "theirs")
    pixels, texts = images(request.param, count=3), Ragged(request.param // 2, 50)
    with torch.no_grad():
        output = reference.flava(pixel_values=(pixels / 255 - MEAN) / STD, **texts.padded)
    return Case(reference, import_checkpoint(tmp_path / "theirs").parts, pixels, texts, output)


def of_image(case: Case) -> tuple[Tensor, list[Tensor]]:
    final, layers = case.parts["image"].forward_intermediates(case.pixels, output_fmt="NLC", return_prefix_tokens=True)
    return final, [torch.cat([special, x], 1) for x, special in layers]


@torch.no_grad()
def test_the_encoder_of_images_is_theirs(case):
    final, layers = of_image(case)
    for own, expected in zip([*layers, final], [*case.output.image_output.hidden_states[1:], case.output.image_embeddings], strict=True):
        check_close(own, expected)
    model, reference = case.parts["image"], case.reference
    check_close(model.forward_head(final, "tokens"), reference.mim_head(final[:, 1:]))
    check_close(model.forward_head(final, "projection"), reference.flava.image_projection(final[:, 0]))


@torch.no_grad()
def test_the_encoder_of_texts_is_theirs(case):
    model, texts = case.parts["text"], case.texts
    final, layers = model.forward_intermediates(texts.packed, texts.lengths, output_fmt="NLC")
    for own, expected in zip([*layers, final], [*case.output.text_output.hidden_states[1:], case.output.text_embeddings], strict=True):
        check_close(own[texts.mask], expected[texts.mask])
    features = model.features(texts.packed, texts.lengths)
    check_close(model.logits(features, "tokens")[texts.mask], case.reference.mlm_head(case.output.text_embeddings)[texts.mask])
    check_close(model.logits(features, "projection"), case.reference.flava.text_projection(case.output.text_embeddings[:, 0]))


@torch.no_grad()
def test_the_encoder_of_both_reads_what_the_others_have_made(case):
    texts, reference, model = case.texts, case.reference, case.parts["multimodal"]
    image = of_image(case)[1][-1]
    text = case.parts["text"].forward_intermediates(texts.packed, texts.lengths, output_fmt="NLC")[1][-1]
    count, patches = image.shape[:2]
    lengths = {"image": torch.full((count,), patches), "text": texts.lengths}
    encoded, own, sample, where = model.encode({"image": image.flatten(0, 1), "text": text[texts.mask]}, lengths, [0, 1])
    projected = [projection(states[-1]) for projection, states in (
        (reference.flava.image_to_mm_projection, case.output.image_output.hidden_states),
        (reference.flava.text_to_mm_projection, case.output.text_output.hidden_states),
    )]  # fmt: skip
    attended = torch.cat([torch.ones(count, 1 + patches), texts.mask], 1)
    theirs = reference.flava.multimodal_model(torch.cat(projected, 1), attention_mask=attended, output_hidden_states=True)
    for layer, expected in zip([*own, encoded.tokens], [*theirs.hidden_states[1:], case.output.multimodal_embeddings], strict=True):
        check_close(layer[where["image"]].unflatten(0, (count, patches)), expected[:, 1 : 1 + patches])
        check_close(layer[where["text"]], expected[:, 1 + patches :][texts.mask])
    last = case.output.multimodal_embeddings
    check_close(encoded.class_token, last[:, 0])
    check_close(model.heads["classes"](encoded, sample, count), reference.itm_head(last))
    check_close(
        model.heads["image_tokens"](encoded.tokens[where["image"]])[0], reference.mmm_image_head(last[:, 1 : 1 + patches]).flatten(0, 1)
    )
    check_close(model.heads["text_tokens"](encoded.tokens[where["text"]])[0], reference.mmm_text_head(last[:, 1 + patches :])[texts.mask])


@torch.no_grad()
def test_the_parts_together_are_their_file_again(case, tmp_path):
    written = FORM.write_all(case.parts)
    check_same(written.tensors, tensors_of(tmp_path / "theirs"), without=WITHOUT)
    save(written, tmp_path / "back")
    again, loading = transformers.FlavaForPreTraining.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not loading["unexpected_keys"]
    assert all("pooler" in name or "logit_scale" in name for name in loading["missing_keys"])
    output = again.eval().flava(pixel_values=(case.pixels / 255 - MEAN) / STD, **case.texts.padded)
    check_close(output.multimodal_embeddings, case.output.multimodal_embeddings)


@torch.no_grad()
def test_the_tokenizer_of_its_targets_gives_the_ids_of_theirs(case):
    pixels = images(32, count=2)
    own, theirs = case.parts["codebook"], case.reference.image_codebook
    mapped = 0.8 * pixels / 255 + 0.1  # DALL-E's map of pixels
    assert torch.equal(own.encode(pixels).view(2, -1), theirs.get_codebook_indices(mapped).flatten(1))


def test_the_parts_without_the_tokenizer_are_a_file_too(case, tmp_path):
    written = FORM.write_all({name: case.parts[name] for name in ("image", "text", "multimodal")})
    check_same(written.tensors, tensors_of(tmp_path / "theirs"), without=(*WITHOUT, "image_codebook"))
    assert written.config["init_codebook"] is False


@torch.no_grad()
def test_each_part_is_a_model_of_theirs(case, tmp_path):
    for name, kind in (("image", "FlavaImageModel"), ("text", "FlavaTextModel"), ("multimodal", "FlavaMultimodalModel")):
        save(FORM.write(case.parts[name]), tmp_path / name)
        again, loading = getattr(transformers, kind).from_pretrained(tmp_path / name, output_loading_info=True)
        assert all("pooler" in key for key in loading["missing_keys"])
        if name == "image":
            check_close(again.eval()((case.pixels / 255 - MEAN) / STD)[0], case.output.image_embeddings)


def save(written, folder) -> None:
    folder.mkdir()
    save_file(
        {name: x.clone().contiguous() for name, x in written.tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(written.config))


def test_a_bias_that_is_stored_twice_must_be_one(case, tmp_path):
    state = {name: x.clone() for name, x in case.reference.state_dict().items()}
    config = (tmp_path / "theirs" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    torch.save(state, tmp_path / "flava.bin")
    assert set(import_checkpoint(tmp_path / "flava.bin").parts) == {"image", "text", "multimodal", "codebook"}
    state["mim_head.bias"][3] += 1
    torch.save(state, tmp_path / "flava.bin")
    with pytest.raises(ValueError, match=r"mim_head.bias differs from mim_head.decoder.bias; they are copies"):
        import_checkpoint(tmp_path / "flava.bin")


def test_the_model_without_heads_is_read_too(case, tmp_path):
    case.reference.flava.save_pretrained(tmp_path / "model")
    parts = import_checkpoint(tmp_path / "model").parts
    assert {name: sorted(model.heads) for name, model in parts.items()} == {
        "image": ["projection"],
        "text": ["projection"],
        "multimodal": [],
    }
    check_close(parts["image"].forward_features(case.pixels), case.output.image_embeddings)


def test_parts_that_are_missing_or_have_other_heads_are_not_written(case):
    with pytest.raises(ValueError, match=r"\['multimodal', 'text'\] are missing"):
        FORM.write_all({"image": case.parts["image"]})
    case.parts["text"].heads["classes"] = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"FLAVA's part 'text' has the heads \['projection', 'tokens'\]; the model also has \['classes'\]"):
        FORM.write(case.parts["text"])


def test_flava_full_has_618_tensors_and_all_have_a_place():
    shapes = shapes_of(transformers.FlavaForPreTraining, transformers.FlavaConfig())
    assert len(shapes) == 618
    parts = check_accounts(shapes, {"model_type": "flava"}, "flava", "transformers", ignored=1 + 6)
    assert len(parts["codebook"].keymap.entries) == 74
    assert {name: parts[name].target.encoder.depth for name in ("image", "text", "multimodal")} == {
        "image": 12,
        "text": 12,
        "multimodal": 6,
    }
