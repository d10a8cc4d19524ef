"""Why a run's samples are noise, grey, tinted, blurred or copies: evidence, symptoms, causes, remedies.

    evidence = measure(path, num=64, seed=0, device="cpu", on_progress=lambda done, total: None)
    observe(evidence)       symptoms: what is visibly wrong
    conclude(evidence)      findings: why, the gravest first, each with figures and remedy; () for nothing wrong
    as_text(...), as_json(...)
    examine(target, path, num, seed, on_progress)   the same evidence of a model that is open already

`evidence` defines the measured figures; `measurements` and `history` measure them, with the `statistics` of images.
"""

from sfumato.diagnose.causes import Finding, conclude
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.measurements import examine, measure
from sfumato.diagnose.render import as_json, as_text
from sfumato.diagnose.symptoms import Symptom, observe

__all__ = ["Evidence", "Finding", "Symptom", "as_json", "as_text", "conclude", "examine", "measure", "observe"]
