"""Tables hold the run's and the comparison's own numbers, and LaTeX, Markdown and CSV say them."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scipy.stats import binomtest

import exporter
from exporter.cli import main
from exporter.comparison import Comparison
from exporter.errors import ExporterError, RunError
from exporter.publish.of_runs import wilson
from exporter.publish.tabular import Numbers, Table
from exporter.store import open_run

TABLE = Table(
    "What it shows.",
    ("Method",),
    (Numbers("Images"), Numbers("Loss", "lower", 2), Numbers("Gain %", "higher", 1), Numbers("x")),
    (("Grad_CAM", 12, 0.125, -3.0, None), ("a|b", 7, 11.5, 4.25, None), ("c", 7, None, 4.25, None)),
)


def test_latex_aligns_numbers_and_marks_the_best() -> None:
    said = TABLE.known().as_latex().splitlines()
    number = "S[table-format={},detect-weight,mode=text]"
    columns = "l" + "".join(map(number.format, ("2.0", "2.2", "-1.1")))
    assert said == [
        r"% \usepackage{booktabs,siunitx}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"  \toprule",
        r"  Method & {Images} & {Loss} & {Gain \%} \\",
        r"  \midrule",
        r"  Grad\_CAM & 12 & \bfseries 0.12 & -3.0 \\",
        r"  a\textbar{}b & 7 & 11.50 & \bfseries 4.2 \\",
        r"  c & 7 & {--} & \bfseries 4.2 \\",
        r"  \bottomrule",
        r"\end{tabular}",
        "% What it shows.",
    ]


def test_markdown_and_csv() -> None:
    known = TABLE.known()
    assert known.as_markdown().splitlines() == [
        "| Method | Images | Loss | Gain % |",
        "| --- | ---: | ---: | ---: |",
        "| Grad_CAM | 12 | **0.12** | -3.0 |",
        "| a\\|b | 7 | 11.50 | **4.2** |",
        "| c | 7 | – | **4.2** |",
    ]
    rows = list(csv.reader(known.as_csv().splitlines()))
    assert rows == [
        ["Method", "Images", "Loss", "Gain %"],
        ["Grad_CAM", "12", "0.125", "-3.0"],
        ["a|b", "7", "11.5", "4.25"],
        ["c", "7", "", "4.25"],
    ]


def test_no_number_is_best_where_all_are_the_same() -> None:
    table = Table("", (), (Numbers("n", "higher"),), ((1.0,), (1.0001,), (None,)))
    assert table.best(0) is None


def test_numbers_that_print_the_same_are_marked_the_same() -> None:
    table = Table("", (), (Numbers("n", "higher", 2),), ((1.234,), (1.231,), (1.1,)))
    assert table.as_markdown().splitlines()[2:] == ["| **1.23** |", "| **1.23** |", "| 1.10 |"]


def test_a_small_p_and_a_small_negative_number_are_not_misprinted() -> None:
    table = Table(
        "", (), (Numbers("p", p=True), Numbers("d", "", 1)), ((1e-9, -0.01), (0.04, -2.0))
    )
    assert table.as_markdown().splitlines()[2:] == ["| <0.001 | 0.0 |", "| 0.040 | -2.0 |"]
    assert r"  {$<$}0.001 & 0.0 \\" in table.as_latex()


NAMES = ("[UNK]", "*", "<b>50 %</b>", "a\n\nb", "__x__ y_z", "`~^&#$")


def test_names_are_text_in_markdown() -> None:
    table = Table("", ("Class",), (), tuple((name,) for name in NAMES))
    assert table.as_markdown().splitlines()[2:] == [
        r"| \[UNK] |",
        r"| \* |",
        r"| \<b>50 %\</b> |",
        "| a b |",
        r"| \_\_x\_\_ y_z |",
        r"| \`\~^\&#$ |",
    ]


@pytest.mark.parametrize(("correct", "of"), [(0, 5), (8, 10), (500, 1000), (7, 7)])
def test_wilsons_interval_is_scipys(correct: int, of: int) -> None:
    expected = binomtest(correct, of).proportion_ci(method="wilson")
    assert wilson(correct, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_why_there_is_no_accuracy_is_said(
    sampling: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    partial = make_run(tmp_path / "partial", shards=1)
    with pytest.raises(RunError, match=r"is not complete: 1 of 3 shards are done; go on with"):
        exporter.table(partial)
    for label, said in ((None, "have no labels, so"), ("none", "have labels that are no classes")):
        images = [sampling.SampleImage("a.jpg", label)]
        run = make_run(tmp_path / f"run {label}", images=images)
        with pytest.raises(RunError, match=said):
            exporter.table(run)


def test_tables_of_a_run(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    accuracy = exporter.table(run)
    assert run.summary is not None
    assert accuracy.rows[0][3] == pytest.approx(100 * (run.summary.accuracy or 0))
    methods = exporter.table(checkpoints[0], "methods")
    own = run.methods()
    assert [row[:4] for row in methods.rows] == [
        (next(m.title for m in run.plan.methods if m.name == row.method), row.layer or "input",
         row.images, row.entropy)
        for row in own
    ]  # fmt: skip
    classes = exporter.table(run, "classes")
    assert [row[0] for row in classes.rows] == [row.name for row in run.classes()]
    agreement = exporter.table(run, "agreement")
    assert [row[-1] for row in agreement.rows] == [row.correlation for row in run.agreement()]


def test_tables_of_a_comparison(comparison: Comparison) -> None:
    told = comparison.contents
    accuracy = exporter.table(comparison)
    assert [row[0] for row in accuracy.rows] == [run.name for run in told.runs]
    by_run = {contrast.run: contrast for contrast in told.contrasts}
    for place, row in enumerate(accuracy.rows):
        if place == told.baseline:
            assert row[3:] == (None, None, None, None)
            continue
        ends = (by_run[place].difference, by_run[place].low, by_run[place].high)
        assert row[3:6] == pytest.approx([100 * (end or 0) for end in ends])
        assert row[6] == by_run[place].p_holm
    flips = exporter.table(comparison.path, "flips")
    assert [row[1:3] for row in flips.rows] == [(c.lost, c.won) for c in told.contrasts]
    for name in ("similarity", "measures", "classes", "layers"):
        table = exporter.table(comparison, name)
        assert len(table.rows) == len(comparison.records(name))
        assert table.as_latex().count(r"\\") == len(table.rows) + 1
    titles = {method.name: method.title for method in told.methods}
    own = comparison.records("similarity")
    assert [row[2] for row in exporter.table(comparison, "similarity").rows] == [
        titles[row.method] for row in own
    ]


def test_a_comparison_without_labels_has_no_accuracy(comparison: Comparison) -> None:
    told = comparison.contents
    runs = tuple(dataclasses.replace(run, accuracy=None) for run in told.runs)
    unlabelled = Comparison(comparison.files, dataclasses.replace(told, runs=runs))
    with pytest.raises(ExporterError, match="has a label that every run knows; choose another"):
        exporter.table(unlabelled)


def test_the_command(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(checkpoints[0])
    assert main(["table", run, "--what", "methods"]) == 0
    table = exporter.table(run, "methods")
    # Without the empty line, the caption would be a row.
    assert f"{table.as_markdown()}\n{table.caption[:20]}" in capsys.readouterr().out
    for kind, text in (("tex", "as_latex"), ("md", "as_markdown"), ("csv", "as_csv")):
        out = tmp_path / f"table.{kind}"
        assert main(["table", run, "--what", "methods", "--out", str(out)]) == 0
        shown = getattr(exporter.table(run, "methods"), text)()
        assert out.read_text("utf-8").startswith(shown)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"what": "flips"}, "there is no table 'flips' of a run"),
        ({"what": "faithfulness"}, "run it with --faithfulness"),
        ({"what": "methods", "out": "table.xlsx"}, "its name ends in .tex, .md, .csv"),
        ({"what": "methods", "out": "no/t.csv"}, "cannot be written: no such file or directory"),
    ],
)
def test_what_cannot_be_a_table_is_said(
    checkpoints: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExporterError, match=re.escape(sentence)):
        exporter.table(checkpoints[0], **given)


def test_a_file_says_what_it_was_made_from(
    checkpoints: list[Path], comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = open_run(checkpoints[0]).files.sha256("plan.json")
    for kind, mark in (("tex", "% {}\n"), ("md", "<!-- {} -->\n")):
        out = tmp_path / f"table.{kind}"
        command = ["table", str(checkpoints[0]), "--what", "methods", "--out", str(out)]
        monkeypatch.setattr("sys.argv", ["exporter", *command])
        assert main(command) == 0
        text = out.read_text()
        run = f"run a: resnet18 (weights: weights 1), plan {plan}; exporter 0.1.0, torch 2.14.1"
        assert mark.format(run) in text
        again = f"exporter table a --what methods --out table.{kind}"
        assert mark.format(f"made again by: {again}") in text
    out = tmp_path / "table.csv"
    exporter.table(comparison, "flips", out=out)
    told = json.loads((tmp_path / "table.csv-metadata.json").read_text())
    assert told["url"] == "table.csv"
    assert len(told["dc:source"]) == 3
    assert plan in told["dc:source"][0]


def test_an_anonymous_table_tells_the_plan_alone(
    checkpoints: list[Path], comparison: Comparison, tmp_path: Path
) -> None:
    plan = open_run(checkpoints[0]).files.sha256("plan.json")
    out = tmp_path / "table.tex"
    exporter.table(checkpoints[0], "methods", out=out, anonymous=True, command="exporter table a")
    assert out.read_text().splitlines()[-1] == f"% plan {plan}"
    told = comparison.contents
    named = tuple(
        dataclasses.replace(run, name=f"{Path(run.path).name} of Ada") for run in told.runs
    )
    renamed = Comparison(comparison.files, dataclasses.replace(told, runs=named))
    shown = exporter.table(renamed, "flips", anonymous=True)
    assert not any("Ada" in str(cell) for row in shown.rows for cell in row)
    assert any("run 2" in str(cell) for row in shown.rows for cell in row)
