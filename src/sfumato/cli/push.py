"""`sfumato push`: put a model with its card into a folder, or onto a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sfumato.cli.console import pick_device, print_json, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Device, Flag, Json, option
from sfumato.errors import UserError
from sfumato.exchange.formats import check_free
from sfumato.run.locate import HUB, hub_name


@dataclass(frozen=True, kw_only=True)
class Push(ModelOptions):
    """Write a model as hubs keep it: weights, configuration, a model card with the figures that `evaluate` measured
    and their intervals, the data, the licence, and a grid of samples. Nothing is uploaded unless --to begins with
    hf:."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato push runs/faces --to faces-model --licence mit",
        "sfumato push runs/faces --to hf:ada/faces --licence cc-by-4.0 --private",
    )

    to: Annotated[str | None, option("FOLDER|hf:USER/NAME")] = None
    """a folder to write; or, with hf: before it, a model on the Hugging Face hub to upload to"""
    licence: Annotated[str, option("NAME")] = ""
    """the licence of the weights, as the hub writes it: mit, apache-2.0, cc-by-4.0, ..."""
    data_licence: Annotated[str, option("TEXT")] = ""
    """the licence of the training images, for the card"""
    private: Flag = False
    """make a new model on the hub private"""
    device: Device = "auto"
    force: Flag = False
    """write a folder of an earlier push anew"""
    json: Json = False

    def perform(self) -> int:
        """Write, and upload where that is asked for."""
        if self.to is None:
            raise UserError("push needs a place: give --to FOLDER, or --to hf:USER/NAME to upload")
        hub, folder, licence = self.to.startswith(HUB), Path(self.to), (self.licence, self.data_licence)
        if self.private and not hub:
            raise UserError(f"--private belongs to an upload: leave it out, or give --to {HUB}USER/NAME")
        if not hub and folder.is_file():
            raise UserError(f"--to {folder} is a file: give a folder")
        name = hub_name(self.to) if hub else folder.resolve().name
        if not hub:
            check_free(folder, self.force)
        self.check_source()
        from sfumato.exchange.hub.card import Licence
        from sfumato.exchange.hub.push import push, write_folder

        model = self.load(pick_device(self.device))
        if hub:
            written = push(model, name, Licence(*licence), self.private)
        else:
            written = write_folder(model, folder, name, Licence(*licence))
        if self.json:
            print_json({"to": self.to, "uploaded": hub, **written.facts})
        else:
            say("\n".join([self.to, *(f"  {line}" for line in written.lines)]))
        return 0


VERB = Push
