"""Results in plain words."""

from __future__ import annotations

from typing import Any

__all__ = ["words"]

_NAMES = {
    "frechet": "Frechet distance",
    "frechet-shrunk": "Frechet, shrunk",
    "kid": "kernel distance",
    "sliced-wasserstein": "sliced Wasserstein",
}


def words(report: dict[str, Any]) -> str:
    """Return a result as a few lines for people.

    Args:
        report: what a file of results holds.
    """
    say = {"bits": _bits, "quality": _quality, "memorisation": _memorisation}[report["kind"]]
    return "\n".join([*say(report["result"], report["settings"]), *(f"- {note}" for note in report["notes"])])


def _bits(result: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The figure with its interval, and where the bits go."""
    total = result["total"]
    how = {
        "sampled": f"{settings.get('terms')} of {result['steps']:,} terms of the bound for each",
        "vlb": f"every term of the bound of {result['steps']:,} steps",
        "flow": "by the probability flow",
    }[result["kind"]]
    images, repeats = f"{result['images']:,} held-out images", result["repeats"]
    what = "bits per dimension" if result.get("levels", 256) else "bits of density per dimension"
    lines = [f"{total['mean']:.4g} {what}{_interval(total)}, over {images}"]
    if result["prior"] is not None:
        prior, rate, rest = (result[name]["mean"] for name in ("prior", "rate", "distortion"))
        lines[0] += f"; of it {prior:.2g} prior, {rate - prior:.3g} rate, {rest:.3g} distortion"
    lines.append(f"- {how}; {settings['variance']} variance")
    if total["noise_half_width"] is not None:
        lines.append(f"- other noise would move it by about {total['noise_half_width']:.2g} ({repeats} draws)")
    return lines


def _interval(figure: dict[str, Any]) -> str:
    """The interval, with two more digits than differ."""
    if figure["half_width"] is None:
        return " (one image, so no interval)"
    return f", 95 % interval {figure['low']:.4g} to {figure['high']:.4g}"


def _quality(result: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """A table: each measure with its interval and what real images have among themselves."""
    first = result["measures"][0]
    split = {"train": "training", "held_out": "held-out"}[result["split"]]
    lines = [
        f"{first['num_generated']:,} images drawn by {settings['sampler']} in {settings['steps']:,} steps, seed "
        f"{settings['seed']}, against {first['num_real']:,} {split} images",
        f"features: {first['extractor']} ({first['extractor_sha256'][:12]}), {first['recipe']}",
        f"{'':20}{'value':>10}  {'95 % interval':22}{'real against real':>18}",
    ]
    for measure in result["measures"]:
        name = _NAMES.get(measure["name"], measure["name"])
        interval = f"{measure['low']:.4g} to {measure['high']:.4g}"
        floor = "-" if measure["floor"] is None else f"{measure['floor']:.4g}"
        lines.append(f"{name:20}{measure['value']:>10.4g}  {interval:22}{floor:>18}")
    return lines


def _memorisation(result: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The verdict, and where to look."""
    return [result["sentence"], f"- the most suspicious images above their neighbours: {result['contact_sheet']}"]
