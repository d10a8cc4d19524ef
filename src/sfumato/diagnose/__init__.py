"""Why a run draws noise, grey, tinted, blurred or copied images: evidence, symptoms, causes, remedies.

    evidence = gather(path, num=64, seed=0, device="cpu", report=lambda done, total: None)
    observe(evidence)       symptoms: what is off to look at
    conclude(evidence)      findings: why, the gravest first, each with figures and remedy; () for nothing wrong
    as_text(...), as_json(...)

`evidence` holds what was measured and how, `measure` and `history` measure it, `looks` are the statistics of images.
"""

from sfumato.diagnose.causes import Finding, conclude
from sfumato.diagnose.evidence import Evidence
from sfumato.diagnose.measure import gather
from sfumato.diagnose.symptoms import Symptom, observe
from sfumato.diagnose.words import as_json, as_text

__all__ = ["Evidence", "Finding", "Symptom", "as_json", "as_text", "conclude", "gather", "observe"]
