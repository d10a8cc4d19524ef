"""Causes of evidence written by hand: a healthy run's, and the same with one thing changed."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from sfumato.cli.main import check_command
from sfumato.diagnose import Evidence, as_json, as_text, conclude, observe
from sfumato.diagnose.causes import CAUSES, WORDS
from sfumato.diagnose.evidence import Data, Labels, LevelError, Process, Reading, Samples, Training, Variance
from sfumato.diagnose.statistics import ImageStatistics
from sfumato.evaluate.ending import outlook
from sfumato.evaluate.need import CLOSE, needed
from sfumato.evaluate.verdict import Distance, Verdict

REAL = ImageStatistics(
    mean=(-0.2, -0.1, 0.0), std=(0.5, 0.5, 0.5), low=(-1.0,) * 3, high=(0.9,) * 3, black=0.1, white=0.02, grain=0.2,
    correlation=0.6, diversity=0.6,
)  # fmt: skip
OURS = replace(REAL, grain=0.17, diversity=0.55, std=(0.45,) * 3)


def reading(ratio: float, bias: float = 0.0, name: str = "v", weights: str = "ema", clean: float = 0.0) -> Reading:
    times = [(i + 0.5) / 10 for i in range(10)]
    ratios = [clean if clean and t < 0.2 else ratio for t in times]
    levels = [LevelError(t, t, 0.1 * own, trivial=0.1, bias=(bias,) * 3) for t, own in zip(times, ratios, strict=True)]
    return Reading(weights, name, tuple(levels))


def samples(
    weights: str = "ema", steps: int = 20, statistics: ImageStatistics = OURS, distance: float = 0.005
) -> Samples:
    return Samples(weights, steps, statistics, distance / 5, distance, finite=1.0, nearest=0.35)


def verdict(distance: float) -> Verdict:
    return Verdict(Distance(0.001, 0.0, 0.002, 0.0), Distance(distance, distance, distance, 0.0), 64)


HEALTHY = Evidence(
    path="runs/a b",
    main="ema",
    parameterization="v",
    recipe={"sampler": "dpmpp-2"},
    data=Data("faces", 1000, 990, REAL, 0.0, 0.3, False),
    process=Process(1000, 0.0001, 0.0, 0.006),
    readings={
        "ema": reading(0.7), "raw": reading(0.71, weights="raw"), "best": reading(0.7, weights="best"),
        "as eps": reading(6, name="eps"), "as x0": reading(13, name="x0"), "as mu": reading(1e5, name="mu"),
    },
    samples={
        "ema": samples(), "raw": samples("raw"), "best": samples("best"), "10 steps": samples(steps=10, distance=0.01),
        "250 steps": samples(steps=250), "unclipped": samples(), "from data": samples(), "no label": samples(),
    },
    unsettled=0.02,
    variance=Variance(0.1, 1.9, 2.0),
    labels=Labels(0.1, 0.7, 0.8, 0.75),
    training=Training(
        images=9600, planned=9600, batch=32, lr=1e-3, steps=300, skipped=0, in_a_row=0, restarts=0, finished=True,
        losses=(0.9, 0.6, 0.5, 0.45, 0.42, 0.41, 0.402, 0.4, 0.398, 0.396), held_out=((0, 0.9, 0.9), (9600, 0.41, 0.4)),
        gradient=(1.0,) * 10, warnings=(), initial=0.0, half_life=200.0, decays_at=6720, speed=100.0, start=0.9,
    ),
    quality=verdict(0.005),
    images=9600,
    shape=(3, 16, 16),
)  # fmt: skip
NOISE = samples(statistics=replace(OURS, grain=0.6, correlation=0.05), distance=0.3)


def having(e: Evidence, **parts: object) -> Evidence:
    """Evidence with some fields of its records, some readings or samples changed."""
    changed: dict[str, object] = {}
    for name, value in parts.items():
        old = getattr(e, name)
        if isinstance(value, dict):
            changed[name] = {**old, **value} if isinstance(old, dict) else replace(old, **value)
        else:
            changed[name] = value
    altered = replace(e, **changed)
    return altered if "quality" in parts else replace(altered, quality=verdict(altered.default.distance))


def every(one: Samples) -> dict[str, Samples]:
    """All samples alike."""
    return {name: replace(one, weights=old.weights, steps=old.steps) for name, old in HEALTHY.samples.items()}


ALTERED: dict[str, Evidence] = {
    "broken_weights": having(HEALTHY, samples=every(replace(NOISE, finite=0.5))),
    "other_data": having(HEALTHY, data={"changed": True}),
    "wrong_reading": having(
        HEALTHY,
        readings={"ema": reading(9), "raw": reading(9), "best": reading(9), "as eps": reading(0.7, name="eps")},
        samples=every(NOISE),
    ),
    "one_image": having(HEALTHY, data={"distinct": 3}),
    "narrow_data": having(HEALTHY, data={"statistics": replace(REAL, low=(-1.0,) * 3, high=(-0.8,) * 3)}),
    "stretched_range": having(HEALTHY, data={"findings": ("the value -9999 is far from all others",)}),
    "skipped_steps": having(HEALTHY, training={"skipped": 60, "in_a_row": 3}),
    "average_too_long": having(
        HEALTHY,
        readings={"ema": reading(5), "best": reading(5)},
        samples=every(NOISE) | {"raw": samples("raw")},
        training={"initial": 0.9},
    ),
    "diverged": having(
        HEALTHY,
        readings={"ema": reading(1.4), "raw": reading(1.5)},
        samples=every(NOISE),
        training={"losses": (0.9, 0.6, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9)},
    ),
    "shifted_output": having(
        HEALTHY, readings={"ema": reading(1.1, bias=0.2), "raw": reading(1.1, bias=0.2), "best": reading(1.1, bias=0.2)}
    ),
    "too_short": having(
        HEALTHY,
        readings={"ema": reading(1.1), "raw": reading(1.1)},
        training={"losses": (0.95, 0.94, 0.93, 0.91, 0.89, 0.87, 0.85, 0.82, 0.8, 0.78)},
    ),
    "schedule_end": having(HEALTHY, process={"alpha_end": 0.4}, samples=every(NOISE) | {"from data": samples()}),
    "last_steps": having(
        HEALTHY,
        readings={"ema": reading(0.8, clean=3), "raw": reading(0.8, clean=3)},
        samples=every(NOISE),
    ),
    "first_level": having(
        HEALTHY, process={"sigma_first": 0.3}, samples={"ema": samples(statistics=replace(OURS, grain=0.08))}
    ),
    "repeats": having(HEALTHY, samples={"ema": replace(samples(), nearest=0.05)}),
    "untaught_variance": having(HEALTHY, variance={"deviation": 0.0}),
    "more_steps": having(
        HEALTHY,
        unsettled=0.5,
        samples={"ema": samples(distance=0.2), "unclipped": samples(distance=0.2), "from data": samples(distance=0.2)},
    ),
    "clipping": having(
        HEALTHY,
        samples={
            "ema": samples(distance=0.2),
            "250 steps": samples(steps=250, distance=0.2),
            "from data": samples(distance=0.2),
        },
    ),
    "unheeded_labels": having(HEALTHY, labels={"other": 0.7}),
    "needs_labels": having(HEALTHY, labels={"dropout": 0.0, "none": 1.2}),
    "too_small": having(HEALTHY, samples=every(samples(distance=0.05)), training={"images": 900_000}),
    "unfinished": having(HEALTHY, training={"images": 4800, "finished": False}),
}


def test_nothing_wrong_is_a_verdict() -> None:
    assert conclude(HEALTHY) == ()
    assert observe(HEALTHY) == ()
    said = " ".join(as_text(HEALTHY, (), ()).split())
    assert said.startswith("runs/a b: nothing wrong found. The samples are close to the data: distance 0.005 [")
    assert re.search(r"nearest training image \d+ of 255 \d+ of 255", said)


def test_every_cause_has_its_evidence() -> None:
    assert list(ALTERED) == list(CAUSES)


@pytest.mark.parametrize("cause", ALTERED)
def test_one_change_is_one_cause(cause: str) -> None:
    (finding,) = conclude(ALTERED[cause])
    assert finding.cause == cause
    assert finding.figures


@pytest.mark.parametrize("cause", ALTERED)
def test_every_remedy_is_a_command_that_parses(cause: str) -> None:
    (finding,) = conclude(ALTERED[cause])
    assert finding.remedy
    for command in finding.remedy:
        program, *words = shlex.split(command)
        assert program == "sfumato"
        check_command(words)


@pytest.mark.parametrize("cause", ALTERED)
def test_text_and_json_hold_every_finding(cause: str) -> None:
    evidence = ALTERED[cause]
    symptoms, findings = observe(evidence), conclude(evidence)
    text, table = as_text(evidence, symptoms, findings), as_json(evidence, symptoms, findings)
    for finding in findings:
        assert finding.remedy[0] in text
        assert finding.sentence.split(":")[0][:40] in " ".join(text.split())
    assert json.loads(json.dumps(table, allow_nan=False))["findings"][0]["cause"] == cause
    assert set(table["evidence"]) == {key.split(".")[1] for key in table["how"] if key.startswith("evidence.")}


def looking(**changes: object) -> Evidence:
    return having(HEALTHY, samples={"ema": samples(statistics=replace(OURS, **changes))})


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("noise", having(HEALTHY, samples={"ema": NOISE})),
        ("black", looking(mean=(-0.95,) * 3, std=(0.05,) * 3)),
        ("white", looking(mean=(0.95,) * 3, std=(0.05,) * 3)),
        ("grey", looking(std=(0.05,) * 3)),
        ("washed out", looking(std=(0.3,) * 3)),
        ("garish", looking(std=(0.7,) * 3)),
        ("tinted", looking(mean=(0.1, -0.1, 0.0))),
        ("too bright", looking(mean=(0.0, 0.1, 0.2))),
        ("too dark", looking(mean=(-0.4, -0.3, -0.2))),
        ("blurred", looking(grain=0.05)),
        ("collapsed", looking(diversity=0.1)),
        ("copies", having(HEALTHY, samples={"ema": replace(samples(), nearest=0.05)})),
        ("broken", having(HEALTHY, samples={"ema": replace(samples(), finite=0.9)})),
    ],
)
def test_symptoms(name: str, evidence: Evidence) -> None:
    assert observe(evidence)[0].name == name


def test_symptoms_without_a_cause_are_reported() -> None:
    evidence = looking(diversity=0.1)
    assert "No cause was found" in " ".join(as_text(evidence, observe(evidence), conclude(evidence)).split())


def test_a_weights_file_alone_has_no_training_and_is_still_diagnosed() -> None:
    alone = replace(ALTERED["wrong_reading"], training=None)
    finding = conclude(alone)[0]
    assert finding.cause == "wrong_reading"
    assert "--config" not in finding.remedy[0]
    assert conclude(replace(HEALTHY, training=None)) == ()


@pytest.mark.parametrize(
    ("fraction", "severity"), [(0.0005, None), (0.01, 1), (0.05, 2), (0.2, 3)]
)  # fmt: skip
def test_skipped_steps_weigh_by_their_fraction(fraction: float, severity: int | None) -> None:
    steps = 10_000
    found = conclude(having(HEALTHY, training={"steps": steps, "skipped": round(steps * fraction / (1 - fraction))}))
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])


# How far samples are from the data, and what is said of it

LATE = (0.9, 0.6, 0.5, 0.45, 0.42, 0.41, 0.402, 0.35, 0.3, 0.25)
"""Losses of a run whose learning rate falls in the last three tenths, as at the end of every run."""


def said(e: Evidence) -> str:
    return " ".join(as_text(e, observe(e), conclude(e)).split())


def test_a_loss_that_falls_with_the_learning_rate_is_no_finding() -> None:
    assert conclude(having(HEALTHY, training={"losses": LATE})) == ()


@pytest.mark.parametrize(("distance", "severity"), [(0.005, None), (0.015, 1), (0.05, 2), (0.2, 3)])
def test_samples_far_from_the_data_that_nothing_else_explains_are_a_short_training(
    distance: float, severity: int | None
) -> None:
    e = having(HEALTHY, samples=every(samples(distance=distance)), training={"losses": LATE})
    assert [finding.severity for finding in conclude(e)] == ([] if severity is None else [severity])
    assert ("nothing wrong found" in said(e)) == (severity is None)
    assert "No cause was found" not in said(e)
    if severity is not None:
        (finding,) = conclude(e)
        assert finding.cause == "too_short"
        assert "9,600 images" in finding.sentence
        assert f"--images {needed(9600, max(distance, 2 * CLOSE))}" in finding.remedy[0]
        assert any("at this run's speed" in figure for figure in finding.figures)


def test_samples_that_may_be_close_to_the_data_are_not_called_faultless() -> None:
    """As the ending of a training: the upper end of the interval decides what is advised."""
    quality = Verdict(Distance(0.001, 0.0, 0.002, 0.0), Distance(0.01, 0.006, 0.03, 0.0), 64)
    e = having(HEALTHY, quality=quality, training={"losses": LATE})
    (finding,) = conclude(e)
    assert (finding.cause, finding.severity) == ("too_short", 1)
    assert f"--images {outlook(9600, e.shape, quality)[1]}" in finding.remedy[0]
    assert said(e).startswith("runs/a b: The samples are close to the data or far from it (")
    assert "Worth knowing: the training may have been too short: it saw 9,600 images." in said(e)
    assert f"At worst about {needed(9600, 0.03):,} would be needed" in said(e)
    long = having(e, quality=quality, training={"images": 900_000})
    assert conclude(long) == ()
    assert "nothing wrong" not in said(long)
    assert "No fault was found." in said(long)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((0.48, 0.3, 0.26, 0.25, 0.23, 0.24, 0.22, 0.21, 0.2, 0.2), "fell by 15 % in three tenths of the run: 0.270"),
        (
            (0.4, 0.3, 0.301, 0.299, 0.3, 0.302, 0.297, 0.2, 0.2, 0.2),
            "hardly changed in three tenths of the run: 0.300",
        ),
        ((0.4, 0.3, 0.3, 0.3, 0.33, 0.33, 0.33, 0.2, 0.2, 0.2), "rose by 10 % in three tenths of the run: 0.300"),
    ],
)
def test_the_course_of_the_loss_is_that_of_six_tenths_before_the_rate_fell(losses: Any, words: str) -> None:
    """A single tenth, of a few hundred examples in a short run, says little."""
    e = having(HEALTHY, samples=every(samples(distance=0.05)), training={"losses": losses})
    assert f"Before the learning rate fell, the training loss {words}" in said(e)


def test_what_the_first_weights_had_seen_is_said() -> None:
    e = having(HEALTHY, samples=every(samples(distance=0.05)), training={"begun_with": 100_000})
    assert "times, besides the 100,000 that its first weights had seen." in said(e)


def test_a_remedy_may_mend_the_layout_alone() -> None:
    """A chain that ends too early spoils the layout; what its first level spoils is spoilt from data too."""
    start = {name: replace(one, layout=0.015, detail=0.018) for name, one in HEALTHY.samples.items()}
    e = having(
        HEALTHY,
        process={"alpha_end": 0.4},
        samples=start | {"from data": replace(start["ema"], layout=0.001, detail=0.019)},
    )
    assert conclude(e)[0].cause == "schedule_end"
    assert "in layout is 0.015 when they start from noise, 0.001 when" in " ".join(conclude(e)[0].figures)


def test_a_short_training_is_not_blamed_where_another_cause_explains_the_distance() -> None:
    assert [finding.cause for finding in conclude(ALTERED["schedule_end"])] == ["schedule_end"]
    copies = having(HEALTHY, samples=every(replace(samples(distance=0.05), nearest=0.05)))
    assert [finding.cause for finding in conclude(copies)] == ["repeats"]


def test_the_headline_is_the_likeliest_cause_then_the_verdict() -> None:
    e = having(HEALTHY, samples=every(replace(NOISE, detail=0.2)))
    assert said(e).startswith("runs/a b: The training was too short: it saw 9,600 images. The samples are nothing like")
    assert "The samples are noisy" in said(e).partition("samples of")[0]


def test_weights_without_a_log_that_are_far_say_so() -> None:
    e = replace(having(HEALTHY, samples=every(samples(distance=0.2))), training=None)
    assert conclude(e) == ()
    assert said(e).startswith("runs/a b: The samples are nothing like the data")
    assert "No cause was found for it" in said(e)


def test_what_was_looked_for_is_said_as_a_user_knows_it() -> None:
    assert set(WORDS) == set(CAUSES)
    line = said(HEALTHY).partition("Looked for and not found: ")[2]
    assert "a training that was too short" in line
    assert "_" not in line


def test_equal_errors_are_one_row() -> None:
    rows = [line.split() for line in as_text(HEALTHY, (), ()).splitlines() if "0.70" in line and "0.71" not in line]
    assert [row[:2] for row in rows] == [["ema,", "best"]]
