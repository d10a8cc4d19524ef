"""Options and verbs of other tools, and what they are called here.

Somebody who comes from another tool types its words first. Each one known here is answered in one line with the option
of Sfumato, the given value filled in; nothing is translated silently, since a length in epochs or an average by decay
means something else there. An entry that begins with a dash is what to write, `{}` standing for the value; any other
is a sentence. Names are compared in lower case with hyphens: `--batch_size`, `-batch-size` and `--Batch-Size` are one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from sfumato.config.keys import SHORT

_LOOKED_AT = 2000
"""Pictures of a source whose headers are read to estimate how many can be read."""

VERBS = {
    "generate gen draw create synthesize inference infer predict": "sample",
    "fit finetune fine-tune resume continue run": "train",
    "eval test metrics fid score measure": "evaluate",
    "describe show status view inspect summary": "info",
    "datasets dataset": "data",
    "check validate clean": "data check",
    "inpaint vary interpolate invert colorize upscale deblur": "edit {}",
    "estimate cost benchmark": "plan",
    "doctor debug": "diagnose",
}
"""Verbs of other tools: the verb here."""

_ALL = {
    "gpu gpus cuda use-cuda": "--device cuda",
    "cpu no-cuda": "--device cpu",
    "mixed-precision fp16 bf16 amp half precision": "everything is computed in float32 (leave it out)",
    "num-workers workers dataloader-num-workers num-threads": (
        "images are decoded once, into a store, by as many processes as there are cores (leave it out)"
    ),
    "overwrite yes": "--force",
    "verbose debug quiet": "leave it out (SFUMATO_TRACEBACK=1 shows tracebacks)",
}
_LENGTH = {
    "learning-rate": "--lr {}",
    "batch-size bs train-batch-size batchsize": "--batch {}",
    "resolution image-size img-size imagesize imsize res image-resolution": "--size {}",
    "output-dir out output outdir out-dir log-dir logdir save-dir results-folder run-dir": "--run {}",
    "name run-name experiment exp-name": "--run runs/{}",
    "resume resume-from resume-from-checkpoint auto-resume continue ckpt checkpoint": (
        "the same command resumes the run in its --run folder by itself (leave it out)"
    ),
    "data-dir data-path dataset dataset-name train-data-dir train-dir input data": (
        "the data comes first, without an option: sfumato {verb} {}"
    ),
    "class-cond conditional class-conditional": "--labels source",
    "label-file labels-file metadata": "--labels {}",
    "timesteps num-timesteps diffusion-steps num-diffusion-timesteps ddpm-num-steps train-timesteps": (
        "--diffusion.schedule.num_steps {}"
    ),
    "noise-schedule beta-schedule schedule ddpm-beta-schedule": "--diffusion.schedule.kind {}",
    "prediction-type objective predict parameterization": "--diffusion.parameterization {}",
    "dim model-channels base-channels num-channels ch": "--net.base {}",
    "dim-mults channel-mult ch-mult": "--net.multipliers {}",
    "num-res-blocks layers-per-block": "--net.blocks {}",
    "dropout": "--net.dropout {}",
    "optimizer optim": "--optim.name {}",
    "weight-decay wd adam-weight-decay": "--optim.weight_decay {}",
    "beta1 adam-beta1": "--optim.beta1 {}",
    "beta2 adam-beta2": "--optim.beta2 {}",
    "eps adam-epsilon": "--optim.eps {}",
    "lr-scheduler scheduler lr-schedule": "--optim.decay {}",
    "max-grad-norm grad-clip gradient-clip gradient-clip-val clip": "--optim.clip {}",
    "flip random-flip hflip horizontal-flip": "--data.flip true",
    "center-crop": "--data.crop center",
    "random-crop": "--data.crop random",
    "channels in-channels": "--data.channels {}",
    "val-split validation-split held-out": "--data.held_out {}",
    "save-every save-interval save-freq checkpointing-steps checkpoint-every": (
        "checkpoints are saved by the clock: --train.save_every SECONDS, 30 by default"
    ),
    "sample-every sample-interval save-images-epochs save-and-sample-every": (
        "sample grids are spaced over the training: --train.grids N, 6 by default"
    ),
    "label-dropout class-dropout-prob p-uncond cond-drop-prob": "--train.label_dropout {}",
    "wandb use-wandb tensorboard mlflow trackio report-to logger": "--train.log tensorboard, wandb, mlflow or trackio",
    "gradient-accumulation-steps grad-accum accumulate": "gradients are not accumulated: choose a smaller --batch",
    "num n num-images max-images": "--images {}",
    "time max-time duration hours": "--budget {}",
    "random-seed manual-seed": "--seed {}",
    "init-from init-weights pretrained finetune load weights": "--init {}",
    "branch fork": "--from {}",
}
_PICTURES = {
    "cfg cfg-scale guidance-scale guidance-strength scale w": "--guidance {}",
    "count n num-samples num-images n-samples samples amount number": "--num {}",
    "num-inference-steps num-steps n-steps sampling-steps sample-steps ddim-steps timesteps": "--steps {}",
    "scheduler solver sample-method sampling-method": "--sampler {}",
    "class classes class-label class-labels labels cls target condition prompt c": "--label {}",
    "batch-size bs batchsize": "--batch {}",
    "output output-dir outdir out-dir output-path save-dir save o f": "--out {}",
    "random-seed manual-seed s": "--seed {}",
    "checkpoint ckpt model model-path model-dir weights-path run run-dir network source": (
        "the run or the weights file comes first, without an option: sfumato {verb} {}"
    ),
    "ema use-ema": "--weights ema",
    "raw no-ema": "--weights raw",
    "gif film video": "--out film.gif",
    "ddim-eta": "--eta {}",
    "clip-denoised clip clip-sample": "--range clip",
    "dynamic-threshold dynamic-thresholding thresholding": "--range threshold",
    "size resolution image-size height width": "a model makes images of the size that it was trained on (leave it out)",
}
_MEASURE = {
    "fid kid prdc precision recall is": "--quality",
    "nll bpd likelihood elbo vlb": "--bits",
    "dataset real real-data reference data-dir": "--data {}",
    "feature-extractor features": "--extractor {}",
}
_TABLES = {
    "train": _LENGTH,
    "plan": _LENGTH,
    "data": _LENGTH,
    "sample": _PICTURES,
    "edit": _PICTURES,
    "evaluate": _MEASURE | _PICTURES,
    "diagnose": _MEASURE | _PICTURES,
}
_VALUES = {
    "epsilon": "eps",
    "noise": "eps",
    "sample": "x0",
    "v_prediction": "v",
    "squaredcos_cap_v2": "cosine",
    "dpmsolver++": "dpmpp-2",
    "dpm-solver++": "dpmpp-2",
}
"""Values of other tools by what they are here."""


def verb_for(name: str, words: Sequence[str]) -> str:
    """Return the command that a verb of another tool means, with the words after it; empty where it is unknown."""
    found = _find(VERBS, name)
    return found and " ".join(["sfumato", found.format(name), *words])


def answer(verb: str, option: str, value: str | None, words: Sequence[str], flags: set[str]) -> str:
    """Return what an option of another tool is here; empty where it is unknown.

    Args:
        verb: such as `train`, or `edit vary`.
        option: as it was typed, such as `--batch_size`.
        value: its value; None where it has none.
        words: the whole command line after the verb, since a length in steps depends on the batch.
        flags: the options of the verb; an answer that names another one is left out.
    """
    name = option.lstrip("-").lower().replace("_", "-")
    room = verb.split()[0]
    dotted = _TABLES.get(room) is _LENGTH
    if dotted and (counted := _computed(name, value, words)):
        found = counted
    else:
        found = _find(_TABLES.get(room, {}), name) or _find(_ALL, name)
    flag = found.split()[0] if found.startswith("--") else ""
    if flag and flag not in flags and not (dotted and ("." in flag or flag[2:] in SHORT)):
        return ""
    text = found.replace("{verb}", verb).replace("{}", _VALUES.get(value or "", value or "VALUE"))
    return f"write {text}" if flag else text


def _find(table: Mapping[str, str], name: str) -> str:
    """Return the entry for one of the names that a key lists; empty where there is none."""
    return next((meaning for names, meaning in table.items() if name in names.split()), "")


def _computed(name: str, value: str | None, words: Sequence[str]) -> str:
    """Return the answers that need arithmetic: lengths in images instead of steps and epochs, half-lives."""
    try:
        number = float(value or "")
    except ValueError:
        number = 0.0
    batch, given = _batch(words)
    if name in ("epochs", "num-epochs", "num-train-epochs", "max-epochs", "n-epochs"):
        return _epochs(number, words)
    if name in (
        "steps", "max-steps", "num-steps", "max-train-steps", "train-steps", "total-steps", "train-num-steps", "iters",
        "iterations", "num-iterations", "max-iter", "n-iter",
    ):  # fmt: skip
        exact = f"--images {number * batch:.0f}" if number else "--images N"
        return f"{exact}{'' if given else f' --batch {batch}'} (length is counted in images, steps times batch)"
    if name == "kimg":
        return f"--images {value or 'N'}k"
    if name in ("ema-decay", "ema", "ema-rate", "ema-max-decay"):
        images = batch * math.log(0.5) / math.log(number) if 0 < number < 1 else 0
        half = f"{images:.0f}" if images else "N"
        return f"--ema.half_life {half} (the average has a half-life in images; this one for a batch of {batch})"
    if name in ("warmup", "warmup-steps", "lr-warmup-steps", "num-warmup-steps"):
        warmup = f"{number * batch:.0f}" if number else "N"
        return f"--optim.warmup {warmup} (in images, steps times batch; or a fraction of the length)"
    return ""


def _epochs(number: float, words: Sequence[str]) -> str:
    """Return a length in epochs as images, counted where the data is there."""
    count, rest = _trained(words[0]) if words and not words[0].startswith("-") else (0, "")
    if not (number and count):
        return "--images N (length is counted in images: epochs times the images that train)"
    times = f"{number:g} times about {count:,} that train{rest}"
    return f"--images {number * count:.0f} (length is counted in images: {times})"


def _trained(name: str) -> tuple[int, str]:
    """Return about how many images of a source train, and why not all; 0 where it can't be opened. What can't be read
    is estimated from the headers of some."""
    from sfumato.config.data import DataConfig
    from sfumato.data import open_source
    from sfumato.data.mirror import evenly
    from sfumato.data.sources.protocol import Unreadable
    from sfumato.errors import UserError

    try:
        source = open_source(name)
        looked, read = evenly(len(source), _LOOKED_AT), 0
        for i in looked:
            with suppress(Unreadable):
                read += source.size(int(i)) is not None
    except (UserError, OSError):
        return 0, ""
    held_out, readable = DataConfig(name).held_out, len(source) * read // max(len(looked), 1)
    bad = f", {len(source) - readable:,} can't be read" if readable < len(source) else ""
    return round(readable * (1 - held_out)), f"; {held_out:.0%} are held out{bad}"


def _batch(words: Sequence[str]) -> tuple[int, bool]:
    """Return the batch that a command line asks for, by whatever name, and whether it does."""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        flag, _, value = word.partition("=")
        if flag.lower().replace("_", "-") in ("--batch", "--train.batch", "--batch-size", "--train-batch-size"):
            text = value or after
            if text.isdecimal() and int(text):
                return int(text), True
    return 64, False
