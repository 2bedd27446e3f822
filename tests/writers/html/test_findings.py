from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import export
from exporter.cli import main
from exporter.console import say_outcome
from exporter.demo import photographs
from exporter.records import MEANS_NOTHING, Row
from exporter.run import Outcome
from exporter.store import Run, open_run
from exporter.writers.html.findings import Finding, findings


@pytest.fixture(scope="module")
def run(sample_run: Path) -> Run:
    return open_run(sample_run)


@pytest.fixture(scope="module")
def rows(run: Run) -> list[Row]:
    return list(run.rows())


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings(run)}


def test_accuracy_and_calibration_are_those_of_the_images(
    rows: list[Row], found: dict[str, Finding]
) -> None:
    judged = [row for row in rows if row.correct is not None]
    right, mean = sum(bool(row.correct) for row in judged), 0.0
    text = f"The model is right on {right} of {len(judged)} labelled images"
    assert found["Accuracy"].text == f"{text} ({100 * right / len(judged):.1f}\xa0%)."
    mean = sum(row.confidence or 0 for row in judged) / len(judged)
    gap = mean - right / len(judged)
    assert abs(gap) > 0.02
    word = "overconfident" if gap > 0 else "underconfident"
    start = f"It is {word}: its mean confidence is {100 * mean:.1f}\xa0%,"
    assert found["Calibration"].text.startswith(start)


@pytest.mark.parametrize(
    ("error", "word"), [(0.04, "well calibrated"), (0.125, "neither over- nor underconfident")]
)
def test_a_model_that_is_right_on_average_may_be_badly_calibrated(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: float, word: str
) -> None:
    summary = run.summary
    assert summary is not None
    surest = sum(part.images * (part.confidence or 0) for part in summary.bins)
    mean = surest / sum(part.images for part in summary.bins)
    told = replace(summary, accuracy=mean, calibration_error=error)
    monkeypatch.setattr(Run, "summary", told)
    (said,) = (finding.text for finding in findings(run) if finding.about == "Calibration")
    assert said.startswith(f"It is {word}")


def test_the_pair_is_the_one_that_is_most_confused(
    rows: list[Row], found: dict[str, Finding]
) -> None:
    wrong = [row for row in rows if row.correct is False]
    pairs = Counter((row.label, row.predictions[0].name) for row in wrong)
    most = max(pairs.values())
    said = re.fullmatch(
        r"It mistakes (.*) for (.*) most often(?:, and another pair as often)?: (\d+) of (\d+) "
        r"images? with that label\.",
        found["Confusion"].text,
    )
    assert said
    assert pairs[said[1], said[2]] == most == int(said[3])
    assert sum(row.label == said[1] and bool(row.predictions) for row in rows) == int(said[4])


def test_a_pair_that_was_confused_once_is_not_told_of_and_a_tie_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = run.confusion()[0]

    def said(*images: int) -> list[str]:
        pairs = tuple(replace(pair, images=count) for count in images)
        monkeypatch.setattr(Run, "confusion", lambda _, limit=None: pairs[:limit])
        texts = (finding.text for finding in findings(run) if finding.about == "Confusion")
        return [text.partition(pair.predicted_name)[2].partition(" of ")[0] for text in texts]

    assert said(1, 1) == []
    assert said(4, 3) == [" most often: 4"]
    assert said(3, 3) == [" most often, and another pair as often: 3"]


def test_the_depths_where_methods_agree_most_and_least(run: Run, found: dict[str, Finding]) -> None:
    by_layer: dict[str, list[float]] = {}
    for row in run.agreement():
        assert row.correlation is not None
        by_layer.setdefault(row.layer, []).append(row.correlation)
    means = sorted((sum(values) / len(values), layer) for layer, values in by_layer.items())
    (low, shallow), (high, deep) = means[0], means[-1]
    expected = (
        f"The methods agree most at {deep} (mean rank correlation {high:.2f}) and least at "
        f"{shallow} ({low:.2f})."
    )
    assert found["Agreement"].text == expected.replace("-", "−")


def test_a_map_made_from_several_layers_is_at_no_depth(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    run = open_run(make_run(tmp_path / "run", layers={"layer4": 7}, combined=("fused",)))
    means: dict[str, list[float]] = {}
    for row in run.agreement():
        means.setdefault(row.layer, []).append(row.correlation or 0.0)
    assert set(means) == {"layer4", "fused"}
    mean = f"{sum(means['layer4']) / len(means['layer4']):.2f}".replace("-", "−")
    said = next(finding.text for finding in findings(run) if finding.about == "Agreement")
    assert said == f"The mean rank correlation of the methods' maps at layer4 is {mean}."


def test_flagged_maps_dead_channels_and_where_to_begin(
    run: Run, rows: list[Row], found: dict[str, Finding]
) -> None:
    flagged = [one for row in rows for one in row.maps if one.flags]
    assert found["Flagged"].text.startswith(f"{len(flagged)} map")
    dead = [row for row in run.channels(found["Dead channels"].at) if row.dead]
    assert found["Dead channels"].text.startswith(f"No image activates {len(dead)} of ")
    worst = max(
        (row for row in rows if row.correct is False), key=lambda row: row.predictions[0].score
    )
    assert found["Look first"].at == f"image={worst.id}"
    assert found["Look first"].text.endswith(f", labelled {worst.label}.")


@pytest.mark.parametrize(
    ("flagged", "text"),
    [
        ({"gradcam layer4 zero": 1}, "1 map shows nothing: Grad-CAM at layer4 (zero)."),
        ({"gradcam layer4 zero": 3}, "3 maps show nothing, all of Grad-CAM at layer4 (zero)."),
        (
            {"gradcam layer4 zero": 1, "gradcam layer3 negative": 2},
            "3 maps show nothing, most often Grad-CAM at layer3 (2, negative).",
        ),
    ],
)
def test_flagged_maps_are_said_to_be_where_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, flagged: dict[str, int], text: str
) -> None:
    assert run.totals is not None
    monkeypatch.setattr(Run, "totals", replace(run.totals, flagged=flagged))
    assert text in [finding.text for finding in findings(run)]


def test_a_run_that_is_not_complete_has_found_nothing(tmp_path: Path, make_run: object) -> None:
    assert callable(make_run)
    assert findings(open_run(make_run(tmp_path / "run", shards=1))) == []


def test_a_layer_that_is_called_by_a_number_is_said_to_be_a_layer(
    tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    run = open_run(
        make_run(tmp_path / "run", layers={"3": 14, "9": 7}, channels={"3": 12, "9": 20})
    )
    told = {finding.about: finding.text for finding in findings(run)}
    assert re.search(r"agree most at layer \d \(.* least at layer \d \(", told["Agreement"])
    assert told["Dead channels"].endswith("of layer 3.")


@pytest.mark.slow
def test_random_weights_are_pointed_out_wherever_what_they_look_at_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(
        "squeezenet1_1", photographs(), out=tmp_path / "run", weights="none", maps="eigencam",
        layers="features", limit=1, writers="html", live=False,
        preprocessing={"size": 64},
    )  # fmt: skip
    run = open_run(tmp_path / "run")
    assert findings(run)[0].text == f"The model was given no weights, and {MEANS_NOTHING}."
    assert MEANS_NOTHING in (run.path / "html" / "index.html").read_text("utf-8")
    say_outcome(Outcome(run, ()))
    assert MEANS_NOTHING in capsys.readouterr().out.replace("\n", " ")
    assert main(["figure", str(run.path), "--out", str(tmp_path / "figure.pdf")]) == 0
    assert MEANS_NOTHING in capsys.readouterr().out.replace("\n", " ")
