"""Operators: every product, inverse and solution against dense matrices; each against another library's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from sfumato.diffusion.inverse.operators import (
    Blur,
    Composed,
    Downscale,
    Function,
    Grayscale,
    LinearOperator,
    Mask,
    gaussian_kernel,
)

from ..common import images
from .cases import LOPSIDED, OPERATORS, SHAPE
from .exact import dense_matrix

EVERY = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def applied(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix times each example."""
    return x.flatten(1) @ matrix.T


@EVERY
def test_the_adjoint_is_the_transpose(operator: LinearOperator) -> None:
    A, x = dense_matrix(operator, SHAPE), images(3, SHAPE)
    y = operator.forward(images(3, SHAPE, seed=1)) + 0.1 * images(3, tuple(operator.forward(x).shape[1:]), seed=2)
    assert torch.allclose(operator.forward(x).flatten(1), applied(A, x), atol=1e-12)
    assert torch.allclose(operator.adjoint(y).flatten(1), applied(A.T, y), atol=1e-12)
    inner = (operator.forward(x) * y).flatten(1).sum(1)
    assert torch.allclose(inner, (x * operator.adjoint(y)).flatten(1).sum(1), atol=1e-12)


@EVERY
def test_the_pseudoinverse_is_moore_and_penrose_s(operator: LinearOperator) -> None:
    A, y = dense_matrix(operator, SHAPE), operator.forward(images(3, SHAPE))
    y = y + 0.1 * images(3, tuple(y.shape[1:]), seed=2)
    x = operator.pseudoinverse(y)
    # a blur at sigma 0.7 leaves its weakest frequency at a hundredth
    assert torch.allclose(x.flatten(1), applied(torch.linalg.pinv(A, rtol=1e-10), y), rtol=1e-6, atol=1e-6)
    again = operator.forward(operator.pseudoinverse(operator.forward(images(3, SHAPE))))
    assert torch.allclose(again, operator.forward(images(3, SHAPE)), atol=1e-7)


SPREADS = {
    "one number": torch.tensor(0.3, dtype=torch.float64),
    "by image": torch.tensor([0.3, 0.05, 0.9], dtype=torch.float64).reshape(3, 1, 1, 1),
    "by coordinate": 0.1 + images(1, SHAPE, seed=4)[0].square(),
    "by channel": torch.tensor([0.3, 0.05, 0.9], dtype=torch.float64).reshape(3, 1, 1),
    "by image and coordinate": 0.1 + images(3, SHAPE, seed=4).square(),
}


@EVERY
@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
@pytest.mark.parametrize("noise_variance", [0.04, 0.0])
def test_solve_inverts_the_measurement_s_covariance(
    operator: LinearOperator, spread: Tensor, noise_variance: float
) -> None:
    if noise_variance == 0 and operator is OPERATORS["blur-larger-than-the-image"]:
        pytest.skip("its weakest frequencies are a billionth: without noise no two ways of inverting it agree")
    A, residual = dense_matrix(operator, SHAPE), operator.forward(images(3, SHAPE, seed=2))
    solved = operator.solve(residual, spread, noise_variance)
    for i in range(3):
        v = spread.expand(3, *SHAPE)[i].flatten()
        S = A * v @ A.T + noise_variance * torch.eye(len(A), dtype=torch.float64)
        expected = torch.linalg.pinv(S, rtol=1e-12, hermitian=True) @ residual[i].flatten()
        assert torch.allclose(solved[i].flatten(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_grey_is_pillow_s() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)
    ours = Grayscale().forward(torch.from_numpy(pixels).permute(2, 0, 1)[None].double())[0, 0].numpy()
    assert np.abs(ours - pillow).max() <= 0.51
    # grey weights that sum to 1 treat [-1, 1] as they treat bytes
    assert sum(Grayscale().weights) == pytest.approx(1.0, abs=1e-12)


def test_downscale_is_pillow_s_box() -> None:
    image = images(1, (1, 6, 9), seed=3).float()
    pillow = np.asarray(Image.fromarray(image[0, 0].numpy(), mode="F").reduce(3))
    assert np.allclose(Downscale(3).forward(image)[0, 0].numpy(), pillow, atol=1e-6)


@pytest.mark.parametrize("kernel", [LOPSIDED, gaussian_kernel(0.7), gaussian_kernel(1.2), torch.rand(4, 9)])
def test_blur_is_scipy_s_wrapped_convolution(kernel: Tensor) -> None:
    image, ours = images(1, (1, 7, 8)), Blur(kernel)
    expected = torch.zeros(7, 8, dtype=torch.float64)
    for i, row in enumerate(kernel.double()):
        for j, weight in enumerate(row):
            shift = (i - kernel.shape[0] // 2, j - kernel.shape[1] // 2)
            expected += weight * image[0, 0].roll(shift, (0, 1))
    assert torch.allclose(ours.forward(image)[0, 0], expected, atol=1e-12)
    if all(n % 2 for n in kernel.shape):  # where the centre is in the middle both mean the same one
        scipy = ndimage.convolve(image[0, 0].numpy(), kernel.double().numpy(), mode="wrap")
        assert np.allclose(expected, scipy)


def test_a_gaussian_kernel_blurs_a_point_to_a_gaussian() -> None:
    kernel = gaussian_kernel(1.5)
    offset = torch.arange(len(kernel)).double() - len(kernel) // 2
    assert float(kernel.sum()) == pytest.approx(1.0)
    assert float((kernel.sum(1) * offset).sum()) == pytest.approx(0.0, abs=1e-12)
    assert float((kernel.sum(1) * offset.square()).sum()) == pytest.approx(1.5**2, rel=1e-2)
    assert gaussian_kernel(1.5, radius=2).shape == (5, 5)


def test_frequencies_that_a_blur_wipes_out_stay_out() -> None:
    """A mean over two neighbours is blind to the checkerboard: noise there must not be blown up."""
    blind, y = Blur(torch.tensor([[0.5, 0.5]])), images(2, (1, 4, 6), seed=1).float()
    assert float(blind.pseudoinverse(y).abs().max()) < 50
    solved = blind.solve(y, torch.tensor(0.5), 0.0)
    assert float(solved.abs().max()) < 100
    stripes = torch.tensor([1.0, -1.0]).repeat(3).expand(1, 1, 4, 6)
    assert float(blind.pseudoinverse(stripes).abs().max()) < 1e-5


@EVERY
def test_single_precision_and_gradients_pass(operator: LinearOperator) -> None:
    x = images(2, SHAPE).float().requires_grad_()
    y = operator.forward(x)
    assert y.dtype == torch.float32
    assert operator.pseudoinverse(y.detach()).dtype == torch.float32
    weights = torch.randn_like(operator.adjoint(y.detach()))
    (pulled,) = torch.autograd.grad((operator.adjoint(y) * weights).sum(), x)
    # the gradient of <w, A^T A x> is A^T A w
    assert torch.allclose(pulled, operator.adjoint(operator.forward(weights)), atol=1e-4)


def test_the_adjoint_of_a_function_works_where_no_gradients_are_recorded() -> None:
    operator, y = OPERATORS["function"], images(2, (5,))
    expected = operator.adjoint(y)
    with torch.no_grad():
        assert torch.equal(operator.adjoint(y), expected)
    with torch.inference_mode():
        assert torch.equal(operator.adjoint(images(2, (5,))), expected)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="not linear"):
        Function(lambda x: x.clamp(-1, 1), SHAPE)
    with pytest.raises(ValueError, match="not linear"):
        Function(lambda x: x + 1, SHAPE)
    with pytest.raises(ValueError, match="bool"):
        Mask(torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="can't be divided by 4"):
        Downscale(4).forward(images(1, SHAPE))
    with pytest.raises(ValueError, match="1, 2, 3"):
        Downscale(0)
    with pytest.raises(ValueError, match="1 channels"):
        Grayscale().forward(images(1, (1, 4, 4)))
    with pytest.raises(ValueError, match="more than 0"):
        gaussian_kernel(0.0)


def test_one_operator_after_another() -> None:
    x = images(2, SHAPE)
    both = Composed(Downscale(2), Composed(Blur(gaussian_kernel(0.7)), Grayscale()))
    apart = Downscale(2).forward(Blur(gaussian_kernel(0.7)).forward(Grayscale().forward(x)))
    assert torch.equal(both.forward(x), apart)
