"""The doctor for data: a collection of images looked at before an hour is spent on it, and what to do about it.

    look     one picture -> a record of a kilobyte          gather   all of them, in processes, crash-proof
    copies   exact and near copies                          crowd    odd and typical ones; do left and right matter?
    report   the figures                                    advice   sentences with their evidence
    words    the summary for a terminal                     page     the same as one HTML file

Nothing is written but what the caller asks for, and nothing is read but the pictures.
"""

from sfumato.inspect.advice import Advice, advise
from sfumato.inspect.report import Report, survey

__all__ = ["Advice", "Report", "advise", "survey"]
