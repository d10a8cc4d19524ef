"""Counter-based noise: the published generator, and numbers that are normal and independent."""

from __future__ import annotations

import torch

from sfumato.diffusion import noise
from sfumato.verify.check import Examination, Finding, Setting

__all__ = ["examinations"]

# (counter, key, words): the known answers of philox4x32 with 10 rounds (Salmon et al. 2011, Random123)
_KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def examinations() -> dict[str, Examination]:
    """Return the examinations of noise by name."""
    return {
        "noise: published vectors": published_vectors,
        "noise: same key, same number": same_key,
        "noise: moments": moments,
    }


def published_vectors(setting: Setting) -> Finding:
    """Philox4x32-10 on the device against the words that its authors publish."""
    wrong = 0
    for counter, key, words in _KNOWN:
        first, second, third, fourth = (torch.tensor(word, device=setting.device) for word in counter)
        actual = noise.philox((first, second, third, fourth), (key[0], key[1]))
        wrong += sum(int(a) != b for a, b in zip(actual, words, strict=True))
    return Finding(
        wrong,
        0,
        "the generator gives the words that its authors publish",
        "the random numbers are not those of other machines: a seed gives other images here, and a training that "
        "moves to this machine does not go on as it was",
    )


def same_key(setting: Setting) -> Finding:
    """Normals of a batch on the device against each drawn alone on the CPU, as a largest difference."""
    index, shape = torch.tensor([0, 7, 2**33 + 1]), (3, 5, 5)
    together = noise.normal(11, noise.Purpose.STEP, index.to(setting.device), shape, step=3, dtype=setting.dtype)
    alone = [noise.normal(11, noise.Purpose.STEP, i[None], shape, step=3, dtype=setting.dtype) for i in index]
    return Finding(
        float((together.cpu() - torch.cat(alone)).abs().max()),
        setting.limit(1e-12, 1e-4),
        "image i gets the same noise in any batch, here and on the CPU",
        "an image depends on its batch or on the device, so samples cannot be reproduced",
    )


def moments(setting: Setting) -> Finding:
    """Mean, variance, third and fourth moment, and the products of neighbours, in standard errors."""
    count = 2**16
    index = torch.arange(count // 16, device=setting.device)
    z = noise.normal(5, noise.Purpose.PRIOR, index, (16,), dtype=setting.dtype).double()
    # each mean below is of variables with the given mean and variance, if z ~ N(0, 1) independently
    cases = [(z, 0, 1), (z**2, 1, 2), (z**3, 0, 15), (z**4, 3, 96)]
    cases += [(z[:, lag:] * z[:, :-lag], 0, 1) for lag in (1, 2, 4)] + [(z[1:] * z[:-1], 0, 1)]
    worst = max(abs(float(v.mean()) - mean) / (variance / v.numel()) ** 0.5 for v, mean, variance in cases)
    return Finding(
        worst,
        4.5,
        "the noise is standard normal and its numbers are uncorrelated, within 4.5 standard errors",
        "the noise is not N(0, I), which training, sampling and the bound all take it to be",
    )
