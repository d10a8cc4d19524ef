"""What the published recipes should take on 1, 8 and 64 GPUs: arithmetic, nothing measured. Prints Markdown.

    python benchmarks/arithmetic.py
    python benchmarks/arithmetic.py --rate 60 --nodes 50

Sfumato trains on one device; more of them are a computation for those who plan one. With P parameters, F FLOPs of an
image's forward pass and a batch of B images on n devices, a step of synchronous data-parallel training takes

    3 F B / (n R) + 2 (n - 1) / n * 4 P / W

the arithmetic (a backward pass counts twice a forward pass) at R FLOP a second, and a ring's exchange of all gradients
in float32 at W bytes a second, nothing of it hidden behind the arithmetic. P, F and the memory are counted from the
presets' networks. Not in it: loading, the optimiser, saving, sampling, and that R falls where few images are left on
each device.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from sfumato.config.presets import PRESETS
from sfumato.nets import Interface

RECIPES = {"cifar10-ddpm": 32, "celeba64-ddpm": 64, "celebahq256-ddpm": 256}
"""The published presets and the side of their images."""
IN_A_NODE = 8


def table(rate: float, inside: float, between: float, counts: tuple[int, ...] = (1, 8, 64)) -> Iterator[str]:
    """Yield the Markdown.

    Args:
        rate: R, FLOP a second of one device.
        inside, between: W within a node of eight and between nodes, bytes a second of one device.
        counts: numbers of devices.
    """
    yield "| recipe | FLOPs in all | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in counts) + " |"
    yield "|---|---|" + "---|" * len(counts)
    for name, side in RECIPES.items():
        config = PRESETS[name].config
        with torch.device("meta"):
            cost = config.net.build(Interface(3)).cost(*config.net.inside(side, side))
        batch, images = config.train.batch, config.train.images
        assert images is not None
        cells = []
        for n in counts:
            speed = inside if n <= IN_A_NODE else between
            exchanged = 2 * (n - 1) / n * 4 * cost.parameters / speed
            computed = 3 * cost.flops * batch / (n * rate)
            memory = 20 * cost.parameters + cost.activation_bytes * batch / n
            hours = images / batch * (computed + exchanged) / 3600
            step = f"{1e3 * computed:.3g} + {1e3 * exchanged:.2g} ms a step"
            cells.append(f"{hours:.3g} h ({step}, {memory / 1e9:.3g} GB)")
        yield f"| `{name}` | {3 * cost.flops * images:.3g} | " + " | ".join(cells) + " |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rate", type=float, default=20.0, help="TFLOP a second that a GPU reaches in training (20)")
    options.add_argument("--inside", type=float, default=300.0, help="GB a second of a GPU within its node (300)")
    options.add_argument("--nodes", type=float, default=25.0, help="GB a second of a GPU between nodes (25)")
    given = options.parse_args()
    print("\n".join(table(given.rate * 1e12, given.inside * 1e9, given.nodes * 1e9)))


if __name__ == "__main__":
    main()
