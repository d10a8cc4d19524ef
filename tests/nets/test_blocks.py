"""Each part against its formula written out with plain operations, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.nets import Interface
from sfumato.nets.derived import fixed
from sfumato.nets.unet.blocks import Downsample, ResidualBlock, SelfAttention, Upsample
from sfumato.nets.unet.unet import UNet, UNetConfig


def randomised(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Give every weight a random value, those that start at zero or one too."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.to(dtype)


def group_norm(x: Tensor, layer: nn.GroupNorm) -> Tensor:
    grouped = x.reshape(len(x), layer.num_groups, -1)
    mean = grouped.mean(dim=2, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(dim=2, keepdim=True)
    normal = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    return normal * layer.weight[:, None, None] + layer.bias[:, None, None]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Correlate without padding, as a sum over the kernel's places."""
    height = (x.shape[2] - weight.shape[2]) // stride + 1
    width = (x.shape[3] - weight.shape[3]) // stride + 1
    out = bias[None, :, None, None].expand(len(x), -1, height, width).clone()
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            window = x[:, :, i : i + stride * height : stride, j : j + stride * width : stride]
            out += torch.einsum("bihw,oi->bohw", window[:, :, :height, :width], weight[:, :, i, j])
    return out


def around(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1))


@pytest.mark.parametrize("outputs", [6, 4])
def test_residual_block(outputs: int) -> None:
    block = randomised(ResidualBlock(6, outputs, 5, dropout=0.3, groups=2)).eval()
    assert isinstance(block, ResidualBlock)
    x, emb = torch.randn(2, 6, 4, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    h = convolve(around(silu(group_norm(x, block.norm_1))), block.conv_1.weight, block.conv_1.bias)
    h = h + (emb @ block.project.weight.T + block.project.bias)[:, :, None, None]
    h = convolve(around(silu(group_norm(h, block.norm_2))), block.conv_2.weight, block.conv_2.bias)
    across = x if outputs == 6 else convolve(x, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x, emb), across + h)
    with torch.inference_mode():
        torch.testing.assert_close(block(x, emb), across + h)


def test_dropout_acts_between_the_convolutions_in_training_alone() -> None:
    block = randomised(ResidualBlock(4, 4, 5, dropout=0.5, groups=2))
    x, emb = torch.randn(400, 4, 4, 4, dtype=torch.float64), torch.randn(400, 5, dtype=torch.float64)
    kept = block.eval()(x[:1], emb[:1])
    assert torch.equal(kept, block(x[:1], emb[:1]))
    block.train()
    drawn = block(x[:1].expand(400, -1, -1, -1), emb[:1].expand(400, -1))
    assert not torch.equal(drawn[0], drawn[1])
    # The last convolution is linear, so the mean over the masks is the value without them.
    error = drawn.std(dim=0) / 20
    assert ((drawn.mean(dim=0) - kept[0]).abs() < 5 * error).all()


def test_one_channel_a_group_is_blind_to_the_time() -> None:
    """Why the configuration asks for at least two: the normalisation takes the time vector's shift away again."""
    x, emb = torch.randn(1, 4, 5, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    for groups, blind in ((4, True), (2, False)):
        block = randomised(ResidualBlock(4, 4, 5, dropout=0.0, groups=groups))
        assert torch.allclose(block(x, emb[:1]), block(x, emb[1:]), atol=1e-10) == blind


@pytest.mark.parametrize("heads", [1, 2])
def test_self_attention(heads: int) -> None:
    module = randomised(SelfAttention(8, heads, groups=2))
    assert isinstance(module, SelfAttention)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    qkv = convolve(group_norm(x, module.norm), module.qkv.weight, module.qkv.bias)
    q, k, v = (part.reshape(2, heads, 8 // heads, 15) for part in qkv.chunk(3, dim=1))
    scores = torch.einsum("bhdi,bhdj->bhij", q, k) / (8 // heads) ** 0.5
    weights = torch.exp(scores) / torch.exp(scores).sum(dim=3, keepdim=True)
    mixed = torch.einsum("bhij,bhdj->bhdi", weights, v).reshape(2, 8, 3, 5)
    expected = x + convolve(mixed, module.out.weight, module.out.bias)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("gradient", [False, True])
def test_attention_runs_the_fused_kernel(gradient: bool, heads: int) -> None:
    module = randomised(SelfAttention(16, heads, groups=2), torch.float32)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(gradient), profile() as record:
        module(x)
    names = {event.key for event in record.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names


def test_downsample_windows_begin_at_twice_the_index() -> None:
    module = randomised(Downsample(3))
    assert isinstance(module, Downsample)
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    expected = convolve(F.pad(x, (0, 1, 0, 1)), module.conv.weight, module.conv.bias, stride=2)
    assert expected.shape == (2, 3, 3, 5)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 7)])
def test_upsample_is_nearest_doubling_then_a_convolution(size: tuple[int, int]) -> None:
    module = randomised(Upsample(3))
    assert isinstance(module, Upsample)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = convolve(around(x.repeat_interleave(2, 2).repeat_interleave(2, 3)), module.conv.weight, module.conv.bias)
    actual = module(x)
    torch.testing.assert_close(actual, expected)
    upstream, inputs = torch.randn_like(expected), (x, *module.parameters())
    theirs = torch.autograd.grad(expected, inputs, upstream)
    for mine, other in zip(torch.autograd.grad(actual, inputs, upstream), theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("module", [SelfAttention(8, 1, groups=2), SelfAttention(8, 2, groups=2), Upsample(8)])
def test_what_follows_from_weights_alone_is_computed_once_with_the_same_bits(module: torch.nn.Module) -> None:
    net = torch.nn.Sequential(randomised(module, torch.float32))
    x = torch.randn(2, 8, 4, 6, requires_grad=True)
    with torch.inference_mode():
        twin = fixed(net)
    expected, actual = net(x), twin(x)
    assert torch.equal(actual, expected)
    mine, other = (torch.autograd.grad(out.square().sum(), x)[0] for out in (actual, expected))
    assert torch.equal(mine, other), "edits follow the gradient of an image"
    assert all(a is b for a, b in zip(net.parameters(), twin.parameters(), strict=True)), "no weight is copied"
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(2)
    assert not torch.equal(net(x), expected), "in training every call follows the weights"


def test_of_the_same_time_and_condition_a_vector_is_computed_once_with_the_same_bits() -> None:
    vocabulary = AttributeVocabulary((Attribute("kind", ("a", "b", "c")), Attribute("age")))
    config = UNetConfig(base=8, multipliers=(1, 2), blocks=1, attention=(), groups=2)
    net = randomised(UNet(config, Interface(1, vocabulary)), torch.float32).eval()
    twin, calls = fixed(net), list[str]()
    for name in ("time", "condition"):
        getattr(twin, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    x, times = torch.randn(2, 1, 8, 8), [torch.full((2,), 5.0), torch.full((2,), 90.0)]
    rows = [vocabulary.parse("kind=b"), vocabulary.parse("kind=c,age=1")]
    rows = [row.take(torch.tensor([0, 0])) for row in rows]
    with torch.no_grad():
        for _ in range(2):
            for time in times:
                for row in (*rows, None):
                    assert torch.equal(twin(x, time, row), net(x, time, row))
        assert sorted(calls) == ["condition"] * 3 + ["time"] * 2
        times[0].fill_(40.0)
        assert torch.equal(twin(x, times[0], rows[0]), net(x, times[0], rows[0])), "a changed tensor is another time"
        rows[1].table.copy_(rows[0].table)
        assert torch.equal(twin(x, times[1], rows[1]), net(x, times[1], rows[0])), "so is a changed condition"
        fresh, other = fixed(net), torch.full((2,), 7.0)
        with torch.autocast("cpu", torch.bfloat16):
            twin(x, other, None)
            assert torch.equal(twin(x, times[1], rows[1]), fresh(x, times[1], rows[1])), "of its own precision"
        assert torch.equal(twin(x, other, None), net(x, other, None)), "nothing of another precision is kept"
        assert torch.equal(copy.deepcopy(twin)(x, times[1], rows[1]), net(x, times[1], rows[1]))
    calls.clear()
    assert torch.equal(twin(x, times[1], rows[1]), net(x, times[1], rows[1]))
    assert sorted(calls) == ["condition", "time"], "what a gradient may pass through is computed"
