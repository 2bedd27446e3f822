"""Feature visualisation: pictures that make a channel or a class fire most."""

from __future__ import annotations

from exporter.maximise.ascent import TOGETHER, Maximised, Recipe, maximise
from exporter.maximise.groups import describe_wanted, estimate_maximised, maximise_groups
from exporter.maximise.requests import Group, Request, Wanted, choose, parse_request, settle

__all__ = [
    "TOGETHER",
    "Group",
    "Maximised",
    "Recipe",
    "Request",
    "Wanted",
    "choose",
    "describe_wanted",
    "estimate_maximised",
    "maximise",
    "maximise_groups",
    "parse_request",
    "settle",
]
