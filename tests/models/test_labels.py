from __future__ import annotations

import pytest

from exporter.models import match_labels
from exporter.models.classes import imagenet_classes, imagenet_synsets, is_imagenet

CLASSES = ("tench, Tinca tinca", "tiger cat", "Egyptian-cat", "7")


def test_names_match_by_any_synonym_and_spelling() -> None:
    match = match_labels(["Tinca_tinca", "TIGER CAT", "egyptian cat", "7", "dog"], CLASSES)
    assert match.index == {"Tinca_tinca": 0, "TIGER CAT": 1, "egyptian cat": 2, "7": 3}
    assert match.reason == "4 of 5 labels are classes of the model, by name"


def test_numbers_and_order_are_never_class_indices() -> None:
    match = match_labels(["0", "1", "2"], CLASSES)
    assert match.index == {}
    assert match.reason.startswith("0 of 3 labels are classes of the model")
    assert "no accuracy" in match.reason


def test_ambiguous_names_never_match() -> None:
    match = match_labels(["crane", "dog"], ["crane", "dog", "Crane"])
    assert match.index == {"dog": 1}
    assert match.reason.endswith("by name; the name of several classes: crane")


@pytest.mark.parametrize("label", ["crane", "Cardigan", "cardigan", "maillot"])
def test_imagenets_homonyms_never_match(label: str) -> None:
    assert match_labels([label, "tabby"], imagenet_classes()).index == {"tabby": 281}


def test_wordnet_ids_match_imagenets_classes_only() -> None:
    assert len(imagenet_synsets()) == 1000
    match = match_labels(["n02123045", "n01440764", "espresso"], imagenet_classes())
    assert match.index == {"n02123045": 281, "n01440764": 0, "espresso": 967}
    assert match.reason == "3 of 3 labels are classes of the model, by WordNet id and name"
    assert match_labels(["n02123045"], imagenet_classes()[:999]).index == {}


def test_nearly_every_imagenet_name_matches_itself() -> None:
    classes = imagenet_classes()
    match = match_labels(classes, classes)
    assert set(classes) - set(match.index) == {"Cardigan", "cardigan", "crane", "maillot"}
    assert all(classes[index] == name for name, index in match.index.items())


def test_imagenet_is_known_by_its_names_in_their_order() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    long = [info.index_to_description(index, detailed=False) for index in range(1000)]
    assert is_imagenet(long)
    assert not is_imagenet(sorted(long))
    assert not is_imagenet(long[:10])


def test_without_labels_or_classes_nothing_matches() -> None:
    assert match_labels([], CLASSES).reason == ""
    match = match_labels(["cat"], ())
    assert match.index == {}
    assert "no class names" in match.reason
