from __future__ import annotations

import torch

from sfumato.codec.pixels import to_bytes, to_model


def test_every_byte_goes_there_and_back() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_model(k)), k)


def test_the_range_is_two_k_over_255_minus_one() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    exact = 2 * k.double() / 255 - 1
    assert (to_model(k).double() - exact).abs().max() < 1e-7
    assert to_model(k)[[0, 255]].tolist() == [-1.0, 1.0]
    assert to_model(k).dtype == torch.float32


def test_the_nearest_byte_is_taken_from_within_half_a_step() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    step = 2 / 255
    for shift in (-0.49, 0.49):
        assert torch.equal(to_bytes(to_model(k) + shift * step), k)
    assert torch.equal(to_bytes(to_model(k[:-1]) + 0.51 * step), k[1:])


def test_what_lies_outside_is_clamped_and_nan_is_black() -> None:
    x = torch.tensor([-1e30, -float("inf"), -1.2, 1.2, float("inf"), float("nan")])
    assert to_bytes(x).tolist() == [0, 0, 0, 255, 255, 0]


def test_other_precisions_give_the_same_bytes() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_model(k).double()), k)
    assert torch.equal(to_bytes(to_model(k).half()), k)


def test_neither_changes_its_argument() -> None:
    x = torch.linspace(-1, 1, 7)
    before = x.clone()
    to_bytes(x)
    assert torch.equal(x, before)
