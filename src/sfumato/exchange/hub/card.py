"""The model card: README.md with what a stranger needs to know before the model is used.

Every figure comes from the weights file, the run's log, or results of `sfumato evaluate` for exactly these weights (by
their SHA-256), with its interval. What is not known is left out, not guessed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato import __version__
from sfumato.data.sources.builtin import BUILTIN
from sfumato.data.sources.protocol import printable
from sfumato.evaluate.results import stored_results
from sfumato.evaluate.text import TITLES
from sfumato.exchange.imports import NO_DATA
from sfumato.model import Model
from sfumato.report.text import count, duration
from sfumato.run.locate import HUB, run_of
from sfumato.run.summary import RunSummary

KINDS = ("bits", "quality", "memorisation")
_MOST_VALUES = 30


@dataclass(frozen=True)
class Licence:
    """What may be done with the weights and the images; empty where the user has not said.

    Attributes:
        weights: the licence's name as hubs write it, such as `mit` or `cc-by-4.0`.
        data: the licence of the training images.
    """

    weights: str = ""
    data: str = ""


def results(model: Model) -> dict[str, dict[str, Any]]:
    """Return of each kind the result that `sfumato evaluate` stored for exactly these weights: the one of the most
    images, the newest of these."""
    newest_last = sorted(stored_results(model), key=lambda stored: stored[0].stat().st_mtime)
    of_most = sorted((report for _, report in newest_last), key=lambda report: report["settings"].get("num", 0))
    found = {report["kind"]: report for report in of_most}
    return {kind: found[kind] for kind in KINDS if kind in found}


def card(model: Model, name: str, licence: Licence, reports: Mapping[str, dict[str, Any]], label: str | None) -> str:
    """Return the text of README.md.

    Args:
        name: of the model, as the hub or the folder has it.
        reports: of `results`.
        label: the condition of the grid of samples; None where it has none.
    """
    sections = [
        _front(model, licence),
        f"# {_text(name)}",
        _introduction(model),
        f"![Samples](samples.png)\n\n{_caption(model, name, label)}",
        "## Use\n\n" + _use(model, name),
        "## Figures\n\n" + _figures(reports),
        "## Training\n\n" + _training(model),
        "## Data\n\n" + _data(model, licence),
        "## Limits\n\n" + _limits(model, reports),
        "## Licence\n\n" + _licence(licence),
    ]
    return "\n\n".join(sections) + f"\n\nWritten by Sfumato {__version__}.\n"


def _text(content: str) -> str:
    """Text from a name or a file as it can stand in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in printable(content))


def _front(model: Model, licence: Licence) -> str:
    """The head that hubs read, YAML; JSON's strings are YAML's."""
    source = model.config.data.source
    fields: list[tuple[str, Any]] = [
        ("library_name", "sfumato"),
        ("pipeline_tag", "unconditional-image-generation"),
        ("tags", ["diffusion", "ddpm", *([] if model.vocabulary is None else ["class-conditional"])]),
    ]
    if licence.weights:
        fields.insert(0, ("license", licence.weights))
    if source.startswith("hf:"):
        fields.append(("datasets", [source.removeprefix("hf:").split(":")[0]]))
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields) + "---"


def _introduction(model: Model) -> str:
    cost, (channels, height, width) = model.net.cost(*model.shape[1:]), model.codec.image_shape
    diffusion = model.config.diffusion
    labels = "" if model.vocabulary is None else ", which can be asked for by label"
    plural = "channel" if channels == 1 else "channels"
    return (
        f"A denoising diffusion model of images of {width}x{height} pixels (width times height), {channels} {plural}, "
        f"{model.codec.format.words}{labels}. It has {count(cost.parameters)} parameters: {model.net.summary()}. The "
        f"network predicts {diffusion.parameterization} on a chain of {model.schedule.num_steps:,} steps; one "
        f"evaluation is {count(cost.flops)}FLOP per image."
    )


def _caption(model: Model, name: str, label: str | None) -> str:
    usual = "" if model.vocabulary is None else " labels as the training images have them;"
    how = usual if label is None else f" the label {_text(label)};"
    command = f"sfumato sample {shlex.quote(_address(name))} --num 64"
    command += "" if label is None else f" --label {shlex.quote(label)}"
    return f"Images 0 to 63 of seed 0, not selected;{how} the default sampler. They are made again by `{command}`."


def _address(name: str) -> str:
    """How a model is named on the command line: on the hub, or in a folder beside the working folder's others."""
    return f"hf:{name}" if "/" in name else name


def _use(model: Model, name: str) -> str:
    source = shlex.quote(_address(name))
    labels = f", label={model_label(model)!r}" if model.vocabulary is not None else ""
    option = f" --label {shlex.quote(model_label(model))}" if model.vocabulary is not None else ""
    shell = [
        *(["pip install 'sfumato[hub]'"] if "/" in name else []),
        f"sfumato sample {source} --num 64 --seed 1{option}",
        f"sfumato info {source}",
    ]
    python = [
        "import sfumato", "", f"pipe = sfumato.Pipeline.from_pretrained({json.dumps(_address(name))})",
        f"images = pipe(16, seed=1{labels})", "images[0]  # a PIL image",
    ]  # fmt: skip
    return "\n".join(["```sh", *shell, "```", "", "```python", *python, "```"])


def model_label(model: Model) -> str:
    """Return one label of a model, as `--label` takes it."""
    assert model.vocabulary is not None
    words = model.vocabulary.describe(model.vocabulary.every())[0]
    if model.config.train.label_dropout == 0 and len(model.attributes) > 1:
        return ",".join(f"{attribute.name}={attribute.text(attribute.every[0])}" for attribute in model.attributes)
    return words


def _figures(reports: Mapping[str, dict[str, Any]]) -> str:
    """A table of what was measured, with 95 % intervals, and how."""
    rows, notes = list[tuple[str, str, str, str]](), list[str]()
    if "bits" in reports:
        result = reports["bits"]["result"]
        total = result["total"]
        rows.append(("bits per dimension", _number(total["mean"]), _interval(total["low"], total["high"]), "-"))
        notes.append(
            f"Bits: {result['images']:,} held-out images, an upper bound unless by the flow ({result['kind']})."
        )
    for measure in reports["quality"]["result"]["measures"] if "quality" in reports else ():
        title = TITLES.get(measure["name"], measure["name"])
        interval = _interval(measure["low"], measure["high"])
        rows.append((title, _number(measure["value"]), interval, _number(measure["floor"])))
    if "quality" in reports:
        settings, first = reports["quality"]["settings"], reports["quality"]["result"]["measures"][0]
        notes.append(
            f"Quality: {first['num_generated']:,} images by {settings['sampler']} in {settings['steps']:,} steps, "
            f"against {first['num_real']:,} real ones, features of {first['extractor']}. Figures of other features, "
            "numbers or images can't be compared with these."
        )
    if "memorisation" in reports:
        notes.append(f"Memorisation: {_text(reports['memorisation']['result']['sentence'])}.")
    if not rows and not notes:
        return "Not measured: `sfumato evaluate` measures bits per dimension, sample quality and memorisation."
    head = "| figure | value | 95 % interval | real against real |\n|---|---|---|---|\n"
    table = head + "\n".join("| " + " | ".join(row) + " |" for row in rows) if rows else ""
    return "\n\n".join([*filter(None, [table]), *notes])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _training(model: Model) -> str:
    if model.origin:
        seen = f", and has seen {model.images:,} images as far as its file tells" if model.images else ""
        return f"It was trained with another library (imported: {_text(model.origin)}), how is not known here{seen}."
    run = run_of(model.path)
    optim, train = model.config.optim, model.config.train
    lines = [
        f"{model.images:,} images seen, in batches of {train.batch}, by {optim.name} with the rate {optim.lr:g}; "
        f"{'the average of the weights' if model.kind == 'ema' else 'the weights as trained'}. `config.json` has the "
        "whole configuration."
    ]
    if run is not None:
        summary = RunSummary.read(run)
        begun = run.read(run.lineage_path) or {}
        if "init" in begun:
            origin = f", imported: {_text(str(begun['origin']))}" if "origin" in begun else ""
            name = _named(str(begun["init"]))
            lines.append(f"It began with the weights `{name}`{origin}, whose licence concerns these too.")
        where = summary.environment.get("device"), summary.environment.get("cpu")
        machine = next((str(name) for name in where if name and name != "cpu"), "")
        if summary.seconds:
            lines.append(f"Time: {duration(summary.seconds)}{f' on {_text(machine)}' if machine else ''}.")
        if summary.held_out is not None:
            lines.append(f"Held-out loss: {summary.held_out.loss:.4g} after {summary.held_out.images:,} images.")
    return "\n\n".join(lines)


def _data(model: Model, licence: Licence) -> str:
    """The data card: whence, how many, how they were prepared, labels. A path of the machine is not told."""
    data = model.config.data
    lines = ["Source: not known." if data.source == NO_DATA else f"Source: {_source(data.source)}."]
    if data.source in BUILTIN:
        builtin = BUILTIN[data.source]
        lines[0] = f"Source: `{data.source}`, {builtin.count:,} images ({builtin.about}); licence {builtin.licence}."
    elif licence.data:
        lines.append(f"Licence of the images: {_text(licence.data)}.")
    else:
        lines.append("Licence of the images: not stated.")
    prepared = [f"{data.held_out:.0%} held out" if data.held_out else "none held out"]
    prepared += ["mirrored at random"] if data.flip else []
    lines.append(f"Preparation: {', '.join(prepared)}; the branch `data` of the configuration has every choice.")
    labels = []
    for attribute in model.attributes:
        values = attribute.values
        shown = ", ".join(map(_text, values[:_MOST_VALUES])) + (", ..." if len(values) > _MOST_VALUES else "")
        labels.append(f"- {_text(attribute.name)}: {shown or f'a number, {attribute.mean:.4g} +- {attribute.std:.4g}'}")
    return "\n\n".join([*lines, *filter(None, ["\n".join(labels)])])


def _source(source: str) -> str:
    """A source without the folders it lies in."""
    return f"`{source}`" if source.startswith(HUB) else f"a collection named `{_named(source)}`"


def _named(source: str) -> str:
    """The last name of a path; a name on the hub as it is."""
    return source if source.startswith(HUB) else printable(Path(source).name)


def _limits(model: Model, reports: Mapping[str, dict[str, Any]]) -> str:
    _, height, width = model.codec.image_shape
    lines = [
        "- It knows only what its training images show, with their gaps and their bias. It is no source of facts.",
        f"- It was trained on images of {width}x{height} pixels, and makes images of that size.",
    ]
    if "memorisation" not in reports:
        lines.append("- Whether it repeats training images was not measured.")
    elif reports["memorisation"]["result"].get("memorised"):
        lines.append("- **It repeats training images** (see the figures): do not use it where these must not be shown.")
    return "\n".join(lines)


def _licence(licence: Licence) -> str:
    if not licence.weights:
        return "Not stated: without a licence others may not use the weights (`sfumato push --licence mit` states one)."
    return f"The weights: {_text(licence.weights)}."
