"""The illustrated report: the explanation of diffusion made from a run of one's own, as one page.

    context = Context.open(Path("runs/faces"))          the model, its images, its run
    report = make(context)                              every section collected: a value
    as_html(report), report.to_dict()                   the page; its figures' numbers

`registry` lists the sections. Each is a module of `sections/` that collects `Figure` values, a view in JavaScript of
the figure's name in `assets/views/`, and a text in `text/`, which docs/explained.md is made from too.
"""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.explain.assemble import make as make
    from sfumato.explain.context import Context as Context
    from sfumato.explain.page import as_html as as_html
    from sfumato.explain.report import Report as Report

__getattr__, __dir__ = lazy(__name__, __file__)
__all__ = __dir__()
