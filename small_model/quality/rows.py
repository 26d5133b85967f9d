"""A cell's numbers with their errors: one row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .frechet import Estimate, Gaussian, frechet, gaussian, jackknife
from .store import Judged

Row = dict[str, Any]


def distance(judged: Judged, reference: Gaussian) -> Estimate:
    features = judged["features"]
    return jackknife(lambda rows: frechet(gaussian(features[rows]), reference), len(features), unbiased=True)


def attributes(judged: Judged) -> Estimate:
    """The share of the attributes named by the captions that the classifier finds in the pictures."""
    named, found = judged["named"].double().sum(1), judged["found"].double().sum(1)
    return jackknife(lambda rows: float(found[rows].sum() / named[rows].sum()), len(named))


def paired(latents: Tensor, end_points: Tensor) -> Estimate:
    """Root mean square of the difference to the end points from the same noise, over that of the end points."""
    end_points = end_points.double().flatten(1)
    apart = (latents.double().flatten(1) - end_points).square().sum(1)
    size = end_points.square().sum(1)
    return jackknife(lambda rows: float((apart[rows].sum() / size[rows].sum()).sqrt()), len(apart))


def difference(one: Judged, other: Judged, reference: Gaussian, factor: float = 1.0) -> Estimate:
    """Fréchet distance of one - factor times the other's; both from the same noise and prompts, so errors cancel."""
    count = min(len(one["features"]), len(other["features"]))

    def apart(rows: Tensor) -> float:
        near, far = (frechet(gaussian(judged["features"][rows]), reference) for judged in (one, other))
        return near - factor * far

    return jackknife(apart, count, unbiased=True)


def row(cell: Row, judged: Judged, reference: Gaussian, end_points: Tensor | None) -> Row:
    """cell: model, sampler, steps, calls; reference: what the Fréchet distance is to."""
    apart = None
    if end_points is not None:
        count = min(len(end_points), len(judged["latents"]))
        apart = paired(judged["latents"][:count], end_points[:count])
    estimates = {"frechet": distance(judged, reference), "attributes": attributes(judged), "paired": apart}
    return cell | with_errors(estimates) | {"pictures": len(judged["features"])}


def with_errors(estimates: Mapping[str, Estimate | None]) -> Row:
    """Values and "NAME_error", to five digits; None where there is no estimate."""
    found: Row = {}
    for name, estimate in estimates.items():
        value, error = (float(f"{number:.5g}") for number in estimate) if estimate else (None, None)
        found |= {name: value, f"{name}_error": error}
    return found
