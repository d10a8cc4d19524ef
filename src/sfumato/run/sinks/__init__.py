"""Sinks: other tools' logs of a training, written beside events.jsonl, which stays the source.

`train.log = ["tensorboard"]` names them. Each is one file with a class that satisfies `Sink`, and one line in `SINKS`.
All get the same points at the same images seen; the module `points` says which. A sink is a convenience: one that fails
is reported once and left out from then on, and the training goes on.
"""

from sfumato.run.sinks.protocol import SINKS, Sink, Sinks

__all__ = ["SINKS", "Sink", "Sinks"]
