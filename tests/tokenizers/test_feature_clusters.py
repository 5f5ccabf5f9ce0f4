"""Features as tokens of a tree of clusters."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from multimodal.tokenizers.feature_clusters import HierarchicalKMeansTokenizer, fit_tree
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings


def features(count: int = 400, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centers = 5 * torch.randn(10, dim, generator=generator)
    return centers[torch.arange(count) % 10] + torch.randn(count, dim, generator=generator)


def fitted(**changed) -> HierarchicalKMeansTokenizer:
    return fit_tree([features()], TreeSettings(**({"branching": 4, "depth": 3} | changed)))


def test_ids_are_leaves_and_decode_to_their_centroids():
    tokenizer, values = fitted(), features()
    ids = tokenizer.encode(values)
    assert tokenizer.vocab_sizes == (tokenizer.num_nodes[-1],) and tokenizer.depth == 3
    assert ids.unique().tolist() == list(range(tokenizer.num_nodes[-1]))
    assert torch.equal(tokenizer.decode(ids), tokenizer.leaf_centroids[ids])
    for leaf in (0, 7, tokenizer.num_nodes[-1] - 1):
        torch.testing.assert_close(tokenizer.leaf_centroids[leaf], values[ids == leaf].mean(0), rtol=1e-3, atol=1e-3)
    assert torch.equal(tokenizer.encode(values, torch.tensor([100, 300])), ids)
    assert tokenizer.encode(values[:0]).shape == (0,)


def test_a_path_is_the_way_to_the_leaf_and_ids_follow_it_from_left_to_right():
    tokenizer = fitted()
    ids = torch.arange(tokenizer.num_nodes[-1])
    path = tokenizer.path(ids)
    assert path.shape == (len(ids), 3) and 0 <= int(path.min()) <= int(path.max()) < 4
    assert path.tolist() == sorted(path.tolist()) and len(path.unique(dim=0)) == len(ids)


def test_standardized_features_are_found_whatever_their_units():
    values, units = features(), torch.tensor([1e4, 1e-3, 1, 1, 50, 0])
    plain = fit_tree([values], TreeSettings(branching=4, depth=2, standardize=True))
    scaled = fit_tree([values * units + 7], TreeSettings(branching=4, depth=2, standardize=True))
    assert scaled.std[5] == 1 and scaled.standardize
    torch.testing.assert_close(scaled.mean[:5], plain.mean[:5] * units[:5] + 7, rtol=1e-4, atol=1e-4)
    ids = scaled.encode(values * units + 7)
    error = (scaled.decode(ids) - (values * units + 7)) / units.clamp(min=1e-3)
    assert float(error[:, :5].square().mean()) < float(values.var(0).mean())  # centroids are in the units of the features
    assert torch.allclose(scaled.leaf_centroids[:, 5], torch.tensor(7.0))


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path):
    for standardize in (False, True):
        tokenizer = fitted(standardize=standardize)
        tokenizer.save_pretrained(tmp_path)
        loaded = load_tokenizer(str(tmp_path))
        assert isinstance(loaded, HierarchicalKMeansTokenizer) and loaded.fingerprint() == tokenizer.fingerprint()
        assert torch.equal(loaded.encode(features()), tokenizer.encode(features()))
        assert json.loads((tmp_path / "config.json").read_text())["config"]["num_nodes"] == list(tokenizer.num_nodes)
    assert fitted(seed=1).fingerprint() != fitted(seed=0).fingerprint() == fitted().fingerprint()


def test_the_vocabulary_is_known_before_the_weights_and_ids_only_after_them():
    empty = HierarchicalKMeansTokenizer(6, (4, 16, 60), branching=4)
    assert empty.vocab_sizes == (60,)
    for ask in (lambda: empty.encode(features()), lambda: empty.decode(torch.tensor([0])), lambda: empty.leaf_centroids):
        with pytest.raises(ValueError, match="not fitted"):
            ask()


def test_new_weights_and_copies_count_at_once():
    one, other = fitted(), fitted(seed=5)
    again = HierarchicalKMeansTokenizer(6, other.num_nodes, 4)
    if one.num_nodes == other.num_nodes:
        one.encode(features())
        one.load_state_dict(other.state_dict())
        assert torch.equal(one.encode(features()), other.encode(features()))
    again.load_state_dict(other.state_dict())
    assert torch.equal(again.encode(features()), other.encode(features()))
    assert torch.equal(copy.deepcopy(other).encode(features()), other.encode(features()))
    doubled = HierarchicalKMeansTokenizer(6, other.num_nodes, 4)
    doubled.load_state_dict({name: 2 * value if "centroids" in name else value for name, value in other.state_dict().items()})
    again.load_state_dict(doubled.state_dict())  # after it has encoded
    assert torch.equal(again.encode(2 * features()), other.encode(features()))


def test_half_precision_features_are_read():
    tokenizer, values = fitted(), features().half()
    assert torch.equal(tokenizer.encode(values), tokenizer.encode(values.float()))
    assert fit_tree([values.numpy()], TreeSettings(branching=4, depth=1)).num_nodes == (4,)


def test_what_cannot_be_encoded_or_decoded_is_named():
    tokenizer = fitted()
    values = features(5)
    values[3, 1] = torch.inf
    with pytest.raises(ValueError, match="feature 3 holds inf at place 1"):
        tokenizer.encode(values)
    with pytest.raises(ValueError, match="features must be 6 wide, got 7"):
        tokenizer.encode(torch.zeros(2, 7))
    for ids in ([-1], [0, tokenizer.num_nodes[-1]]):
        for ask in (tokenizer.decode, tokenizer.path):
            with pytest.raises(ValueError, match="ids must be from 0 to"):
                ask(torch.tensor(ids))


@pytest.mark.parametrize("num_nodes", [(), (5,), (4, 3), (4, 17), (0,)])
def test_sizes_that_make_no_tree_are_refused(num_nodes):
    with pytest.raises(ValueError, match=r"num_nodes|there must be a level"):
        HierarchicalKMeansTokenizer(3, num_nodes, branching=4)


def test_children_that_make_no_tree_are_refused(tmp_path):
    tokenizer = fitted()
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for children in (-1, 0, 5, 3):
        save_file(weights | {"children_0": torch.tensor([children])}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"model.safetensors holds no tree of clusters"):
            load_tokenizer(str(tmp_path))
