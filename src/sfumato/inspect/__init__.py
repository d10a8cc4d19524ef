"""Inspect a data set before training: `sfumato data check`.

    scan         each image once -> a record of a kilobyte       duplicates   exact and near ones
    outliers     outliers, typical images, the mirror test       report       `check`: all of it, and the figures
    advice       sentences with their evidence                   render       the report as text and as a page

Only files that the caller requests are written. The names below are loaded on first use, so that the processes of
`scan` don't import torch.
"""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.inspect.advice import Advice, advise
    from sfumato.inspect.report import Report, check

__all__ = ["Advice", "Report", "advise", "check"]
__getattr__, __dir__ = lazy(__name__, __file__)
