"""The kernels that are timed compute the same, and the one that is chosen is the one others are divided by."""

import torch

from benchmarks import attention_kernels


def test_all_kernels_give_the_same():
    torch.manual_seed(0)
    tokens, bias = torch.randn(3, 2, 2, 5, 8), torch.randn(1, 2, 5, 5)
    for own in (None, bias):
        first, *others = [kernel(*tokens, own) for kernel in attention_kernels.KERNELS.values()]
        for other in others:
            torch.testing.assert_close(other, first)
    assert not torch.allclose(attention_kernels.plain(*tokens, bias), attention_kernels.plain(*tokens, None), atol=1e-2)


def test_the_script_measures_every_case_and_divides_the_chosen_kernel():
    shown = []
    attention_kernels.main(["--lengths", "8", "--tokens", "16", "--heads", "1", "--rounds", "1"], shown.append)
    titles, firsts = [table.title for table in shown[:-1]], [next(iter(table.columns[0].cells)) for table in shown[:-1]]
    assert titles == [f"{dtype}, {bias}, 2 x 8 tokens" for dtype in ("float32", "bfloat16") for bias in ("no bias", "a learned bias")]
    assert firsts == ["fused", "softmax", "softmax", "softmax"]
