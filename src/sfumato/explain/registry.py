"""The sections of the page in order: a new one is a module, a view of its figure's name, a text, and a line here."""

from __future__ import annotations

from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Section
from sfumato.explain.sections import (
    bound,
    cards,
    chain,
    check,
    diagnosis,
    embedding,
    forward,
    machine,
    merge,
    network,
    posterior,
    quality,
    ranking,
    reverse,
    samplers,
    schedules,
    step,
    targets,
    training,
    wall,
)


def _text(context: Context) -> tuple[Figure, ...]:
    """A section that is a text alone."""
    return ()


SECTIONS: tuple[Section, ...] = (
    Section("idea", "The sculptor's marble", _text),
    Section("forward", "From image to noise", forward.collect, part="The process"),
    Section("chain", "Step by step, and in one jump", chain.collect),
    Section("merge", "Why one jump is enough", merge.collect),
    Section("schedules", "How fast the noise comes", schedules.collect),
    Section("posterior", "The way back, if the image were known", posterior.collect),
    Section("bound", "What every step costs", bound.collect),
    Section("targets", "What the network should say", targets.collect),
    Section("step", "One training step", step.collect, part="The network"),
    Section("embedding", "How the network knows the time", embedding.collect),
    Section("network", "The U-Net", network.collect),
    Section("reverse", "From noise to image", reverse.collect, part="Sampling"),
    Section("samplers", "Fewer steps", samplers.collect),
    Section("training", "How the training went", training.collect, part="Your run", own=True),
    Section("machine", "Through training", machine.collect, own=True),
    Section("wall", "What the model makes", wall.collect),
    Section("quality", "How good the samples are", quality.collect, own=True),
    Section("diagnosis", "What is wrong, and why", diagnosis.collect, own=True),
    Section("ranking", "Which images hurt", ranking.collect, own=True),
    Section("check", "What the images are like", check.collect, own=True),
    Section("cards", "Data and model cards", cards.collect, own=True),
    Section("paper", "What differs from the paper", _text, part="Notes"),
    Section("glossary", "Glossary", _text),
)
