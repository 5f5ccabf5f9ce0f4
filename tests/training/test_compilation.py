"""Compiled layers: used while a fit runs, under the same names, and gone afterwards."""

import lightning as L
import pytest
import torch

from multimodal.training import compilation

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.mark.parametrize("num_experts", [1, 2])
def test_layers_are_compiled_for_a_fit(make_classifier, labelled_samples, loader, monkeypatch, num_experts):
    calls = []

    def compile_with_calls(function, dynamic):
        assert dynamic
        return lambda *args: (calls.append(function.__name__), function(*args))[1]

    monkeypatch.setattr(compilation.torch, "compile", compile_with_calls)
    weights = {}
    for compiled in (False, True):
        model = make_classifier(compile_encoder=compiled, encoder={"num_experts": num_experts})
        names = list(model.state_dict())
        model.on_train_start = lambda model=model, names=names: names == list(model.state_dict()) or pytest.fail("names changed")
        L.Trainer(accelerator="cpu", max_epochs=2, **QUIET).fit(model, loader([labelled_samples]))
        weights[compiled] = model.state_dict()
    assert all(torch.equal(weights[True][name], weights[False][name]) for name in weights[False])
    layers, steps = 2 * num_experts, 2
    assert calls.count("project") == calls.count("finish") == layers * steps
    assert not any(half in vars(layer) for layer in model.encoder.layers() for half in compilation.HALVES)
