"""The sections of the page in order: a new one is a module, a view of its figure's name, a text, and a line here."""

from __future__ import annotations

from sfumato.explain.figure import Section
from sfumato.explain.sections import bound, chain, forward, merge, posterior, schedules, targets

SECTIONS: tuple[Section, ...] = (
    Section("idea", "The sculptor's marble", lambda context: ()),
    Section("forward", "From image to noise", forward.collect, part="The process"),
    Section("chain", "Step by step, and in one jump", chain.collect),
    Section("merge", "Why one jump is enough", merge.collect),
    Section("schedules", "How fast the noise comes", schedules.collect),
    Section("posterior", "The way back, if the image were known", posterior.collect),
    Section("bound", "What every step costs", bound.collect),
    Section("targets", "What the network should say", targets.collect),
)
