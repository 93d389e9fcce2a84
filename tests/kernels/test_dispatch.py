"""Which kernels a device gets."""

import importlib.util

import pytest
import torch

from nllbd.kernels import dispatch


def test_references_where_there_is_no_gpu() -> None:
    kernels = dispatch.pick_kernels(torch.device("cpu"))
    assert kernels.name == "reference"
    assert kernels.beam_step is None


def test_triton_on_a_gpu() -> None:
    pytest.importorskip("triton")
    assert dispatch.pick_kernels(torch.device("cuda")).name == "triton"


def test_a_gpu_without_triton_is_told_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    with pytest.raises(dispatch.MissingTriton, match="pip install triton"):
        dispatch.pick_kernels(torch.device("cuda"))


def test_triton_is_not_imported_before_it_is_asked_for() -> None:
    assert importlib.util.find_spec("nllbd.kernels.dispatch") is not None
    source = importlib.util.find_spec("nllbd.kernels.dispatch").loader.get_source("nllbd.kernels.dispatch")
    top = source[: source.index("def triton_kernels")]
    assert "_triton" not in top.replace("triton_kernels", "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_reference_projection(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9000, 16, generator=generator).to(dtype)  # more than one tile
    hidden = torch.randn(3, 16, generator=generator).to(dtype)
    found, ids = dispatch.reference_kernels().project_topk(weight, hidden, 4)
    expected, expected_ids = (hidden.float() @ weight.float().T).log_softmax(dim=1).topk(4, dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(ids, expected_ids)
