"""Settings: the file, the flags and the arguments, and what is said of wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.config import DEFAULT_MAPS, RunConfig, WriterConfig, build_config, build_writer_config
from exporter.errors import ConfigError

NEEDED = {"model": "resnet18", "images": "photos", "out": Path("run")}


def test_defaults_are_the_designs() -> None:
    config = build_config(None, dict(NEEDED))
    assert config.maps == DEFAULT_MAPS == ("gradcam", "layercam", "eigencam")
    assert config.layers == ("auto",)
    assert config.writers == ("tensorboard", "wandb", "html")
    assert (config.shard_size, config.keep, config.wandb) == (256, 64, "offline")
    assert config.weights == "DEFAULT"


def test_flags_win_over_the_file_and_arguments_over_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("batch-size = 3\nshard_size = 5\nseed = 7\n[preprocessing]\nsize = 64\n")
    config = build_config(file, {**NEEDED, "shard_size": 6, "seed": 8}, seed=9)
    assert (config.batch_size, config.shard_size, config.seed) == (3, 6, 9)
    assert config.preprocessing.size == 64


def test_a_value_that_was_not_given_does_not_hide_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("limit = 4\n")
    assert build_config(file, {**NEEDED, "limit": None}).limit == 4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"batch_size": 0}, r"^the setting 'batch_size' is 0; give a number above 0, or auto$"),
        ({"keep": "some"}, r"^the setting 'keep' is 'some'; give a number or all$"),
        ({"keep": -1}, r"^the setting 'keep' is -1; give a number or all$"),
        ({"seed": -1}, r"^the setting 'seed' is -1: .*greater than or equal to 0"),
        ({"seed": 2**63}, r"^the setting 'seed' is .*less than or equal to"),
        ({"preprocessing": {"size": -1}}, r"'preprocessing.size' is -1; give a number of pixel"),
        ({"preprocessing": {"size": "big"}}, r"'preprocessing.size' is 'big'; give a number of pi"),
        ({"preprocessing": {"resize": "x"}}, r"'preprocessing.resize' is 'x'; give a number of pi"),
        ({"preprocessing": {"sizes": 3}}, r"no setting 'preprocessing.sizes'; did you mean 'size'"),
        ({"preprocessing": {"mean": 0.5}}, r"'preprocessing.mean' is 0.5; give a list"),
        ({"preprocessing": 4}, r"'preprocessing' is 4; give a table of settings$"),
        ({"maps": 3}, r"^the setting 'maps' is 3; give a list"),
        ({"limit": "ten"}, r"^the setting 'limit' is 'ten'; give a whole number$"),
        ({"limit": 1.5}, r"^the setting 'limit' is 1.5; give a whole number$"),
        ({"live": "perhaps"}, r"^the setting 'live' is 'perhaps'; give true or false$"),
        ({"target": 5}, r"^the setting 'target' is 5; give a text$"),
        ({"writers": ("html", "tensorbord")}, r"'tensorbord'; did you mean 'tensorboard'\?"),
        ({"wandb": "sometimes"}, r"'wandb' is 'sometimes'.*'offline', 'online' or 'off'"),
        ({"lairs": ("x",)}, r"no setting 'lairs'; did you mean 'layers'"),
        ({"report_url": "file:///tmp/x"}, r"not a web address"),
        (
            {"preprocessing": {"mean": (0.5,), "std": (0.5, 0.5)}},
            r"mean has 1 values and std has 2",
        ),
        ({"preprocessing": {"std": (0.0,)}}, r"greater than 0"),
        ({"preprocessing": {"bands": (0,)}}, r"'preprocessing.bands' is 0; give numbers of bands"),
        ({"preprocessing": {"bands": ()}}, r"'preprocessing.bands' is \(\); give numbers of bands"),
        ({"preprocessing": {"range": [5]}}, r"'preprocessing.range' is \[5\]; give two numbers, "),
        ({"preprocessing": {"range": (4000, 0)}}, r"range is \[4000, 0\]; give the number that"),
        ({"preprocessing": {"range": (0, float("inf"))}}, r"is inf; give two numbers"),
        ({"preprocessing": {"range": (0, 9), "bits": 12}}, r"bits = 12 and range both say"),
    ],
)
def test_a_wrong_setting_is_one_sentence(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_config(None, dict(NEEDED), **values)
    assert "\n" not in str(caught.value)


def test_one_text_is_a_list_of_one_and_commas_part_names() -> None:
    for given, read in (
        ("gradcam", ("gradcam",)),
        (("gradcam,layercam", "x:f"), ("gradcam", "layercam", "x:f")),
        (["x/a,b.py:f", "m:k=1,2"], ("x/a,b.py:f", "m:k=1,2")),
    ):
        assert build_config(None, dict(NEEDED), maps=given).maps == read
    for name in ("layers", "activations", "kernels"):  # in which a comma may be part of a name
        assert getattr(build_config(None, dict(NEEDED), **{name: "a,b"}), name) == ("a,b",)
    assert build_config(None, dict(NEEDED), writers="html,wandb").writers == ("html", "wandb")
    asked = "layer4:0,3,10-14"
    assert build_config(None, dict(NEEDED), maximise=asked).maximise == (asked,)


def test_a_misspelled_setting_is_named_and_not_the_one_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('modle = "resnet18"\nimages = "x"\nout = "y"\n')
    with pytest.raises(ConfigError, match=r"^there is no setting 'modle'; did you mean 'model'\?$"):
        build_config(file)


def test_a_missing_setting_names_its_flag() -> None:
    with pytest.raises(ConfigError, match="'model' is missing; give --model"):
        build_config(None, {"images": "x", "out": "y"})


def test_a_file_may_be_named_by_text(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("limit = 4\n")
    assert build_config(str(tmp_path / "run.toml"), dict(NEEDED)).limit == 4
    with pytest.raises(ConfigError, match=r"none\.toml' cannot be read"):
        build_config(str(tmp_path / "none.toml"), dict(NEEDED))


@pytest.mark.parametrize("text", ["batch_size = ", "\x00"])
def test_a_file_that_is_not_toml_is_said_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="is not TOML"):
        build_config(file, dict(NEEDED))


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        build_config(tmp_path / "none.toml", dict(NEEDED))


def test_the_former_name_of_a_setting_still_works(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("quality = true\n")
    assert build_config(file, dict(NEEDED)).faithfulness
    assert build_config(None, {**NEEDED, "quality": True}).settings()["faithfulness"] is True


def test_settings_leave_out_only_what_moves_no_value() -> None:
    config = build_config(None, dict(NEEDED))
    left_out = set(RunConfig.model_fields) - set(config.settings())
    how = {"http", "out", "profile", "workers", "processes", "devices", "engine"}
    assert left_out == {*how, *WriterConfig.model_fields}


def test_what_the_command_line_gives_is_called_by_its_flag() -> None:
    for name, value, flag in (
        ("batch_size", "lots", "--batch-size is 'lots'; give a number above 0, or auto"),
        ("processes", "many", "--processes is 'many'; give a number above 0, or auto"),
        ("seed", -1, "--seed is -1: "),
        ("maps", 3, "--map is 3; give a list"),
    ):
        with pytest.raises(ConfigError, match="^" + re.escape(flag)):
            build_config(None, {**NEEDED, name: value})
    with pytest.raises(ConfigError, match=r"^--keep is 'some'; give a number or all$"):
        build_writer_config({"keep": "some"}, {})
