"""Feature visualisation: pictures that make a channel or a class fire most."""

from __future__ import annotations

from exporter.maximise.ascent import TOGETHER, AscentSettings, maximise
from exporter.maximise.groups import (
    choose,
    describe_wanted,
    estimate_maximised,
    make_pictures,
    maximise_groups,
)
from exporter.maximise.requests import Request, Wanted, parse_request, settle

__all__ = [
    "TOGETHER",
    "AscentSettings",
    "Request",
    "Wanted",
    "choose",
    "describe_wanted",
    "estimate_maximised",
    "make_pictures",
    "maximise",
    "maximise_groups",
    "parse_request",
    "settle",
]
