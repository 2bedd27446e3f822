"""Lines over runs: where they go, and where their names stand."""

from __future__ import annotations

from exporter.comparison.chart import CHART, chart_lines


def test_names_of_lines_that_end_together_stand_below_one_another() -> None:
    width, height = CHART
    told, low = chart_lines([("a", [1.0, None, 0.5]), ("b", [1.0, 0.75, 0.49]), ("c", [1.0, 0.0])])
    assert low == 0
    assert [(x, y) for x, y, _, _ in told[0][2]] == [(0, 0), (width, height / 2)]
    assert told[1][1].startswith("M0.00 0.00L50.00 11.00L")
    places = {name: place for name, _, _, place in told}
    assert places == {"a": height / 2, "b": height / 2 + 4, "c": height}


def test_names_of_too_many_lines_stand_where_the_lines_end() -> None:
    told, low = chart_lines([(str(n), [1.0, -0.3]) for n in range(12)])
    assert low == -0.4
    assert {place for *_, place in told} == {told[0][2][-1][1]}
