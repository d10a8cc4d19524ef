"""Causes that lie in the images."""

from __future__ import annotations

import shlex

from sfumato.diagnose.causes.finding import FEW, Finding, again, far
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.symptoms import byte

__all__ = ["narrow_data", "one_image", "other_data"]

NARROW = 0.5
"""Range of the data, of the 2 from black to white, below which it is narrow."""
ONE_VALUE = 0.95
"""Share of values at black, or at white, from which on nearly all of the data is that."""


def other_data(e: Evidence) -> Finding | None:
    """The images are not those that the run was trained on."""
    if not e.data.changed:
        return None
    return Finding(
        "other_data",
        3 if far(e) else 2,
        f"The images of {e.data.source} are no longer those that the run was trained on.",
        (
            "Their fingerprint is not the one in the newest checkpoint.",
            f"The samples are {e.draw.apart:.3f} from them (two halves of the images: {e.data.apart:.3f}).",
        ),
        (again(e),),
    )


def one_image(e: Evidence) -> Finding | None:
    """So few different images that there is nothing to learn but them."""
    if e.data.distinct >= FEW:
        return None
    return Finding(
        "one_image",
        3,
        f"The data is {e.data.distinct} image{'s' * (e.data.distinct != 1)}, over and over: the model can only repeat.",
        (
            f"Training images: {e.data.train:,}; different ones among them, pixel by pixel: {e.data.distinct}.",
            f"Two training images differ by {127.5 * e.data.look.diversity:.0f} of 255, two samples by "
            f"{127.5 * e.draw.look.diversity:.0f}.",
        ),
        (f"sfumato data check {shlex.quote(e.data.source)}",),
    )


def narrow_data(e: Evidence) -> Finding | None:
    """Images within a small part of the range from black to white."""
    look = e.data.look
    span = max(high - low for low, high in zip(look.low, look.high, strict=True))
    extreme = max(look.black, look.white)
    if span > NARROW and extreme < ONE_VALUE:
        return None
    shade = "black" if look.black > look.white else "white"
    where = f"98 % of their values lie within {byte(min(look.low))} to {byte(max(look.high))} of 255"
    if extreme >= ONE_VALUE:
        where = f"{100 * extreme:.0f} % of their values are {shade}"
    return Finding(
        "narrow_data",
        3,
        "The training images have next to no contrast, and so have the samples: the data is at fault, not the model.",
        (
            f"{where[0].upper()}{where[1:]}.",
            f"The samples' values spread by {127.5 * e.draw.look.contrast:.0f} of 255, the data's by "
            f"{127.5 * look.contrast:.0f}.",
        ),
        (f"sfumato data check {shlex.quote(e.data.source)}",),
    )
