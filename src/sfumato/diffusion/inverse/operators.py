r"""Linear measurements of an image: the operators A in y = A x_0 + s_y n, n ~ N(0, I).

Inpainting, colouring, enlarging and deblurring differ only in A. A posterior method needs four things of it: A, its
adjoint A^T, its pseudoinverse A+, and the solution of the measurement's own covariance,

    ( A diag(v) A^T + s_y^2 I ) u = residual,            v: the image's variance, s_y^2: the noise's

Where no two measured numbers depend on the same pixel (a mask, a luma, a block's mean) A diag(v) A^T is diagonal for
any v; a circular blur with one v for the whole image is diagonal in Fourier space, where frequency f is multiplied by
K_f:

    mask: v          grey: sum_c w_c^2 v_c          area mean: mean(v) / factor^2          blur: v |K_f|^2

Everything else is solved by conjugate gradients, which need products only. Where the noise and v both vanish the
solution is the pseudoinverse's: a number that no pixel explains gets 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.diffusion.inverse.solvers import conjugate_gradients

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601), as Pillow's mode "L" has them."""

_ITERATIONS = 200


class LinearOperator(ABC):
    """A linear map of images; implementations are frozen values and map batches to batches."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return A x for images x (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y, (B, C, H, W): <A x, y> = <x, A^T y>."""

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return A+ y, (B, C, H, W): of all images that explain y best, the one with the least norm."""
        return conjugate_gradients(lambda x: self.adjoint(self.forward(x)), self.adjoint(y), _ITERATIONS)

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        """Return ( A diag(v) A^T + s_y^2 I )^-1 residual, where v >= 0 broadcasts to (B, C, H, W)."""

        def apply(u: Tensor) -> Tensor:
            return self.forward(prior_variance * self.adjoint(u)) + noise_variance * u

        return conjugate_gradients(apply, residual, _ITERATIONS)


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """Some pixels are known: the mask, (1 or C, H, W) bool, is True there, and y, of the image's shape, 0 elsewhere."""

    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise ValueError(f"the mask is {self.mask.dtype}: make it bool, True where pixels are known")

    def forward(self, x: Tensor) -> Tensor:
        """Return x where known, 0 elsewhere: a mask is its own adjoint and pseudoinverse."""
        return torch.where(self.mask.to(x.device), x, 0.0)

    def adjoint(self, y: Tensor) -> Tensor:
        """As `forward`."""
        return self.forward(y)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """As `forward`."""
        return self.forward(y)

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        """Return residual / (v + s_y^2) where known, 0 elsewhere."""
        return self.forward(_divide(residual, prior_variance + noise_variance))


@dataclass(frozen=True)
class Grayscale(LinearOperator):
    """The grey value of each pixel, y = sum_c w_c x_c, (B, 1, H, W); by default the luma of red, green and blue."""

    weights: tuple[float, ...] = LUMA

    def _column(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the channels; there must be as many as weights."""
        if x.shape[1] != len(self.weights):
            raise ValueError(f"{len(self.weights)} grey weights, but {x.shape[1]} channels: give one weight for each")
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return w_c y."""
        return self._column(y) * y

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return w_c y / |w|^2."""
        return self.adjoint(y) / sum(w * w for w in self.weights)

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        """Return residual / ( sum_c w_c^2 v_c + s_y^2 )."""
        measured = (self._column(residual).square() * prior_variance).sum(1, keepdim=True)
        return _divide(residual, measured + noise_variance)


@dataclass(frozen=True)
class Downscale(LinearOperator):
    """The mean of each block of factor x factor pixels, (B, C, H / factor, W / factor)."""

    factor: int

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"factor = {self.factor}: an image can be made smaller 1, 2, 3, ... times")

    def forward(self, x: Tensor) -> Tensor:
        """Return the block means of images whose height and width the factor divides."""
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"{height}x{width} pixels can't be divided by {self.factor}: crop them or choose another")
        return F.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return each value distributed evenly over its block."""
        return self.pseudoinverse(y) / self.factor**2

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return each value repeated over its block: A A^T = I / factor^2."""
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        """Return residual / ( mean(v) / factor^2 + s_y^2 )."""
        if prior_variance.shape[-2:].numel() > 1:
            size = [self.factor * n for n in residual.shape[-2:]]
            prior_variance = self.forward(prior_variance.expand(*[-1] * (prior_variance.ndim - 2), *size))
        return _divide(residual, prior_variance / self.factor**2 + noise_variance)


def gaussian_kernel(sigma: float, radius: int | None = None) -> Tensor:
    """Return a Gaussian blur's kernel with sum 1, (2 radius + 1, 2 radius + 1) float64, by default 4 sigma wide."""
    if not sigma > 0:
        raise ValueError(f"sigma = {sigma}: a blur's width in pixels is more than 0")
    radius = radius if radius is not None else max(1, int(4 * sigma + 0.999))
    line = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


@dataclass(frozen=True, eq=False)
class Blur(LinearOperator):
    """Convolution of each channel with a kernel (h, w), which may be larger than the image, around the edges: y_p =
    sum_q k_q x_(p - q + centre), with the centre at (h // 2, w // 2).

    A frequency f is multiplied by K_f, the kernel's Fourier transform. Frequencies that the blur removes, |K_f|^2 < eps
    max |K|^2 (eps of the dtype), cannot be distinguished from rounding errors: the pseudoinverse leaves them 0, and so
    does `solve` where there is no noise.
    """

    kernel: Tensor

    def _transfer(self, like: Tensor) -> Tensor:
        """K_f at the frequencies of an image, (H, W // 2 + 1) complex."""
        (height, width), (h, w) = like.shape[-2:], self.kernel.shape
        rows = (torch.arange(h, device=like.device) - h // 2) % height
        columns = (torch.arange(w, device=like.device) - w // 2) % width
        position = (rows[:, None] * width + columns).flatten()
        wrapped = like.new_zeros(height * width).index_add(0, position, self.kernel.to(like).flatten())
        transfer: Tensor = torch.fft.rfft2(wrapped.reshape(height, width))
        return transfer

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred image, (B, C, H, W)."""
        return _multiply(x, self._transfer(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the blur with the kernel rotated by half a turn: conj(K_f)."""
        return _multiply(y, self._transfer(y).conj())

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return 1 / K_f at every frequency that is left."""
        transfer = self._transfer(y)
        return _multiply(y, torch.where(_left(transfer), transfer.conj() / transfer.abs().square(), 0.0))

    def solve(self, residual: Tensor, prior_variance: Tensor, noise_variance: float) -> Tensor:
        """Return residual / ( v |K_f|^2 + s_y^2 ); by conjugate gradients where v differs within an image."""
        if prior_variance.shape[-2:].numel() > 1:
            return super().solve(residual, prior_variance, noise_variance)
        transfer = self._transfer(residual)
        spectrum = transfer.abs().square() * prior_variance + noise_variance
        solvable = _left(transfer) | (spectrum.new_tensor(noise_variance) > 0)
        return _multiply(residual, torch.where(solvable, _divide(torch.ones_like(spectrum), spectrum), 0.0))


def _multiply(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each frequency of x by a factor, (H, W // 2 + 1)."""
    product: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * factor, s=x.shape[-2:])
    return product


def _left(transfer: Tensor) -> Tensor:
    """Which frequencies a blur leaves above rounding errors."""
    power = transfer.abs().square()
    return power > torch.finfo(power.dtype).eps * power.max()


@dataclass(frozen=True, eq=False)
class Function(LinearOperator):
    """Any linear function x (B, C, H, W) -> y (B, ...) of images of a shape (C, H, W), written in torch.

    The adjoint is its derivative's, by automatic differentiation. Linearity is checked: f(a + 2 b) = f(a) + 2 f(b).
    """

    function: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 1, *self.shape, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())
        with torch.no_grad():
            once, apart = self.function(a + 2 * b), self.function(a) + 2 * self.function(b)
        if not torch.allclose(once, apart, rtol=1e-3, atol=1e-3 * float(once.abs().max())):
            raise ValueError("the measurement is not linear, f(a + 2 b) != f(a) + 2 f(b): subtract its constant from y")

    def forward(self, x: Tensor) -> Tensor:
        """Return function(x)."""
        return self.function(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the vector-Jacobian product of the function with y, which is the same at every x."""
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *self.shape, dtype=y.dtype, device=y.device, requires_grad=True)
            (pulled,) = torch.autograd.grad(self.function(x), x, y.clone(), create_graph=y.requires_grad)
        return pulled if y.requires_grad else pulled.detach()


@dataclass(frozen=True)
class Composed(LinearOperator):
    """One measurement after another, A = outer inner: a blurred image made small, a small one with a hole."""

    outer: LinearOperator
    inner: LinearOperator

    def forward(self, x: Tensor) -> Tensor:
        """Return outer(inner(x))."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return inner^T(outer^T(y))."""
        return self.inner.adjoint(self.outer.adjoint(y))
