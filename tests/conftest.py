"""Runs to test with, made through the real store and without torch.

``python -m tests.conftest OUT`` makes the sample run in OUT, for whoever wants one to look at.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.records import (
    ChannelBatch,
    ImageEntry,
    LayerRecord,
    MaximisedPicture,
    MethodRecord,
    ModelRecord,
    Plan,
    Prediction,
    Preprocessing,
    Region,
    Row,
    StoredMap,
)
from exporter.render import encode_png, kernel_sheet
from exporter.store import KernelSheet, RunFolder, create_run
from exporter.summaries import (
    Scope,
    channel_table,
    merge_channels,
    merge_set,
    shard_parts,
)
from tests.packing import pack_activation, pack_map

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
CLASSES = (
    "tabby, tabby cat",
    "Egyptian cat",
    "espresso",
    "missile",
    "猫",
    'a "quoted" <b>class</b> & more',
    "space shuttle",
    "wall clock",
)

FSYNC = os.fsync
METHODS = ("gradcam", "layercam", "eigencam")
LAYERS = {"layer3": 14, "layer4": 7}
CHANNELS = {"layer3": 12, "layer4": 20}
VIEW = 224


@dataclass(frozen=True)
class SampleImage:
    """One image of a sample run; without ``photo`` its pixels are a coloured gradient."""

    path: str
    label: str | None = None
    photo: str | None = None
    error: str | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    zero_map: bool = False
    predicted_boxes: tuple[tuple[float, float, float, float], ...] | None = None
    region: NDArray[np.bool_] | None = None


HOSTILE = (
    SampleImage("<script>alert(1)</script>.jpg", "tabby, tabby cat", zero_map=True),
    SampleImage('with spaces/it\'s "quoted" & <b>bold</b>.jpg', 'a "quoted" <b>class</b> & more'),
    SampleImage("动物/猫.jpg", "猫"),
    SampleImage("100%/#hash?query=1&x.jpg", "nobody's class <i>"),
    SampleImage("broken/truncated.jpg", "missile", error="the JPEG data end after 512 bytes"),
    SampleImage("__proto__.jpg"),
    SampleImage("x" * 180 + ".jpg", "espresso"),
)


def default_images() -> tuple[SampleImage, ...]:
    """Return about 20 images: bundled photographs, then names that break careless writers."""
    labels = {"chelsea": "Egyptian cat", "coffee": "espresso", "rocket": "missile"}
    names = sorted(file.stem for file in PHOTOS.glob("*.jpg")) if PHOTOS.is_dir() else []
    photos = tuple(
        SampleImage(f"{name}.jpg", labels.get(name, "wall clock"), photo=name)
        for name in names[:13]
    )
    return photos or tuple(SampleImage(f"gradient-{n:02d}.jpg", CLASSES[n % 8]) for n in range(13))


SAMPLE_IMAGES = (*default_images(), *HOSTILE)


def sample_plan(
    images: Sequence[SampleImage] = SAMPLE_IMAGES,
    *,
    shard_size: int = 8,
    methods: Sequence[str] = METHODS,
    layers: dict[str, int] | None = None,
    channels: Mapping[str, int] = CHANNELS,
    combined: Sequence[str] = (),
    target: str = "predicted",
    model: str = "resnet18",
) -> Plan:
    """Return the plan of a run over the images; nothing is computed."""
    explained = LAYERS if layers is None else layers
    return Plan(
        schema=1,
        settings={
            "model": f"torchvision:{model}",
            "maps": list(methods),
            "maximise": ["layer4:17,2", "fc:5", "output:5,2:prior=none"],
            "seed": 0,
            "top_k": 3,
        },
        model=ModelRecord(
            name=model,
            spec=f"torchvision:{model}",
            weights="none",
            checkpoint=None,
            classes=CLASSES,
            preprocessing=Preprocessing(size=(VIEW, VIEW), resize=256, source="the sample"),
            parameters=11_689_512,
            outputs=len(CLASSES),
        ),
        layers=(
            LayerRecord("conv1", "Conv2d", (64, 112, 112), 9408, 0, True),
            *(
                LayerRecord(name, "Sequential", (channels.get(name, 8), size, size), 100, 0, True)
                for name, size in explained.items()
            ),
            LayerRecord("fused<b>", "Identity", None, 0, 1, False),
            LayerRecord("fc", "Linear", (len(CLASSES),), 4104, 0, True),
        ),
        explained=(*explained, *combined),
        layer_reason="the last two stages",
        recorded=tuple(explained),
        methods=tuple(_method(name) for name in methods),
        target=target,
        image_set="photos",
        images=tuple(_entries(images)),
        shards=tuple(
            (start, min(start + shard_size, len(images)))
            for start in range(0, len(images), shard_size)
        ),
        label_match=f"{len(CLASSES)} labels are the names of classes",
        label_index={name: index for index, name in enumerate(CLASSES)},
        execution={"device": "cpu", "dtype": "float32", "memory_format": "contiguous"},
        versions={"exporter": "0.1.0", "torch": "2.14.1"},
        command="exporter run --model resnet18 --images photos --out RUN",
        created="2026-01-01T00:00:00+00:00",
        notes=("the layer 'fused<b>' never ran",),
    )


def _method(name: str) -> MethodRecord:
    titles = {"gradcam": "Grad-CAM", "layercam": "LayerCAM", "eigencam": "Eigen-CAM"}
    return MethodRecord(
        name=name,
        title=titles.get(name, name),
        shows="Where the layer speaks for the class.",
        formula="Σ_c w_c A_c,  w_c = mean_ij ∂y/∂A_cij",
        paper="Selvaraju et al., Grad-CAM, ICCV 2017",
        url="https://arxiv.org/abs/1610.02391",
        cost="one backward, shared",
        caveats="Coarse: it sees no more than the layer's grid.",
        relu=name != "eigencam",
        pixel=name in ("saliency", "inputxgradient", "occlusion"),
    )


def _entries(images: Sequence[SampleImage]) -> list[ImageEntry]:
    entries = []
    seen: dict[str, int] = {}
    for image in images:
        key = hashlib.blake2b(image.path.encode(), digest_size=16).hexdigest()
        seen[key] = seen.get(key, 0) + 1
        id = key if seen[key] == 1 else f"{key}-{seen[key]}"
        entries.append(ImageEntry(id, key, image.path, image.label, None, image.boxes, None))
    return entries


def sample_pixels(image: SampleImage) -> NDArray[np.uint8]:
    """Return the original pixels, uint8 (H, W, 3) RGB."""
    if image.photo is not None:
        bgr = cv2.imread(str(PHOTOS / f"{image.photo}.jpg"), cv2.IMREAD_COLOR)
        return np.ascontiguousarray(bgr[..., ::-1])
    seed = hashlib.blake2b(image.path.encode(), digest_size=4).digest()
    y, x = np.mgrid[0:300, 0:400].astype(np.float32)
    waves = [np.sin(x / (9 + seed[c] / 8) + y / (9 + seed[3 - c] / 8)) for c in range(3)]
    return np.uint8(127 + 120 * np.stack(waves, axis=-1))


def _jpeg(pixels: NDArray[np.uint8]) -> tuple[bytes, tuple[float, float, float, float]]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    view = cv2.resize(
        pixels[top : top + side, left : left + side], (VIEW, VIEW), interpolation=cv2.INTER_AREA
    )
    written, content = cv2.imencode(
        ".jpg", np.ascontiguousarray(view[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    assert written
    return content.tobytes(), (left, top, left + side, top + side)


def sample_map(generator: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Return a smooth signed map (size, size): one bump up and one down."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    (up, left), (down, right) = generator.random((2, 2)).astype(np.float32)
    rise = np.exp(-((y - up) ** 2 + (x - left) ** 2) * 12)
    fall = np.exp(-((y - down) ** 2 + (x - right) ** 2) * 12)
    return np.float32(generator.uniform(0.5, 3)) * (rise - np.float32(0.4) * fall)


def sample_rows(plan: Plan, images: Sequence[SampleImage], index: int) -> list[Row]:
    """Return the rows of a shard: the same each time."""
    start, stop = plan.shards[index]
    return [_row(plan, entry, images[start + n]) for n, entry in enumerate(plan.images[start:stop])]


def _row(plan: Plan, entry: ImageEntry, image: SampleImage) -> Row:
    label_index = plan.label_index.get(entry.label or "")
    row = Row(
        id=entry.id,
        key=entry.key,
        path=entry.path,
        label=entry.label,
        label_index=label_index,
        boxes=entry.boxes,
    )
    if image.error is not None:
        return replace(row, error=image.error)
    generator = np.random.default_rng(int(entry.key[:8], 16))
    pixels = sample_pixels(image)
    content, crop = _jpeg(pixels)
    logits = generator.normal(size=len(CLASSES))
    if label_index is not None:
        logits[label_index] += 2
    scores = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-scores)[:3]
    targets = [f"class:{n}" for n in best[: 2 if plan.target == "top-2" else 1]]
    if image.predicted_boxes is not None:
        targets = [f"box:{len(image.predicted_boxes) - 1}"]
    return replace(
        row,
        width=pixels.shape[1],
        height=pixels.shape[0],
        crop=crop,
        predictions=tuple(
            Prediction(int(n), CLASSES[n], float(np.float32(scores[n]))) for n in best
        ),
        loss=None if label_index is None else float(np.float32(-np.log(scores[label_index]))),
        correct=None if label_index is None else bool(best[0] == label_index),
        image=content,
        predicted_boxes=image.predicted_boxes,
        regions=()
        if image.region is None
        else tuple(
            Region(target, *cells.shape, np.packbits(cells).tobytes())
            for target, cells in ((targets[0], image.region), ("given", image.region[:, ::-1]))
        ),
        maps=tuple(_maps(plan, image, generator, targets)),
        activations=tuple(
            pack_activation(_activation(plan, entry, layer), layer, 8) for layer in plan.recorded
        ),
    )


def _mask(row: Row) -> NDArray[np.bool_] | None:
    """Return an image's given mask: its given region, laid over the original."""
    region = next((region for region in row.regions if region.target == "given"), None)
    if region is None or row.crop is None or row.height is None or row.width is None:
        return None
    left, top, right, bottom = row.crop
    y, x = np.ogrid[: row.height, : row.width]
    i = np.floor((y + 0.5 - top) * region.height / (bottom - top)).astype(np.intp)
    j = np.floor((x + 0.5 - left) * region.width / (right - left)).astype(np.intp)
    inside = (i >= 0) & (i < region.height) & (j >= 0) & (j < region.width)
    at = np.clip(i, 0, region.height - 1), np.clip(j, 0, region.width - 1)
    covered: NDArray[np.bool_] = region.array()[at] & inside
    return covered


def _maps(
    plan: Plan, image: SampleImage, generator: np.random.Generator, targets: Sequence[str]
) -> list[StoredMap]:
    maps = []
    for method in plan.methods:
        for (layer, size), target in product(_places(plan, method).items(), targets):
            values = sample_map(generator, size)
            if image.zero_map and (method, layer) == (plan.methods[0], plan.deepest):
                values = np.zeros_like(values)
            maps.append(pack_map(values, method.name, layer, target))
    return maps


def _places(plan: Plan, method: MethodRecord) -> dict[str, int]:
    """Return where a method has maps, and their sides; pixels, attention and fusion as in runs."""
    if method.pixel:
        return {"": 56}
    if method.name == "rollout":
        return {"attention": 14}
    known = {layer.name: layer.output[1] for layer in plan.layers if layer.name in plan.explained}
    return known | ({"fused": 28} if "fused" in plan.explained else {})


def _activation(plan: Plan, entry: ImageEntry, layer: str) -> NDArray[np.float32]:
    """Return what a ReLU of the layer gave, float32 (C, H, W); channel 3 is dead.

    Of a layer of more than 64 channels the last one is three times channel 1.
    """
    channels, size, _ = next(one.output for one in plan.layers if one.name == layer)
    generator = np.random.default_rng(int(entry.key[8:16], 16) + len(layer))
    values = np.stack([sample_map(generator, size) for _ in range(channels)])
    values[3] = 0
    if channels > 64:
        values[-1] = 3 * values[1]
    return np.maximum(values, 0)


def sample_batches(plan: Plan, images: Sequence[SampleImage], index: int) -> list[ChannelBatch]:
    """Return the shard's reductions, one batch per layer."""
    start, stop = plan.shards[index]
    entries = [
        entry for n, entry in enumerate(plan.images[start:stop]) if images[start + n].error is None
    ]
    batches = []
    for layer in plan.recorded if entries else ():
        values = np.stack([_activation(plan, entry, layer) for entry in entries])
        flat = values.reshape(*values.shape[:2], -1)
        batches.append(
            ChannelBatch(
                layer=layer,
                ids=tuple(entry.id for entry in entries),
                mean=flat.mean(axis=2),
                maximum=flat.max(axis=2),
                zeros=(flat == 0).mean(axis=2, dtype=np.float32),
                place=flat.argmax(axis=2).astype(np.int32),
                height=values.shape[2],
                width=values.shape[3],
            )
        )
    return batches


def sample_kernels() -> list[KernelSheet]:
    """Return two sheets, RGB (64, 3, 7, 7) and (128, 64, 3, 3) of which 16 kernels are shown.

    A third is drawn as a run's is, of a layer whose channels are recorded.
    """
    generator = np.random.default_rng(7)
    first = generator.normal(size=(64, 3, 7, 7)).astype(np.float32)
    later = generator.normal(size=(128, 64, 3, 3)).astype(np.float32)
    unit = (first - first.min()) / (first.max() - first.min())
    colour = unit.transpose(0, 2, 3, 1).reshape(8, 8, 7, 7, 3).transpose(0, 2, 1, 3, 4)
    grey = (later[:16] / np.abs(later).max() + 1) / 2
    plain = grey.transpose(0, 2, 1, 3).reshape(16 * 3, 64 * 3)
    deep = generator.normal(size=(12, 4, 3, 3)).astype(np.float32)
    drawn, shown = kernel_sheet(deep)
    return [
        KernelSheet("conv1", "Conv2d", first, _png(colour.reshape(56, 56, 3)), 64),
        KernelSheet("layer2.0.conv1", "Conv2d", later, _png(plain), 16),
        KernelSheet("layer3", "Conv2d", deep, encode_png(drawn), shown),
    ]


def _png(values: NDArray[np.float32]) -> bytes:
    enlarged = np.kron(np.uint8(values * 255), np.ones((4, 4, 1)[: values.ndim], np.uint8))
    written, content = cv2.imencode(".png", enlarged)
    assert written
    return content.tobytes()


def sample_maximised() -> list[MaximisedPicture]:
    """Return pictures of two channels of ``layer4``, of one of ``fc`` and of two classes."""
    generator = np.random.default_rng(11)
    how = "128 steps of 0.05, shifted anywhere, zoomed up to 15 %, seed 0"
    spots = (("layer4", 17), ("layer4", 2), ("fc", 5), ("output", 5), ("output", 2))
    return [
        MaximisedPicture(
            layer=layer,
            channel=channel,
            name=CLASSES[channel] if layer == "output" else "",
            before=0.125 * place,
            after=float("nan") if layer == "fc" else 4.5 + place,
            peak=9.25,
            prior="none" if layer == "output" else "fourier",
            settings=how,
            height=48,
            width=64,
            picture=_png(generator.random((12, 16, 3))),
        )
        for place, (layer, channel) in enumerate(spots)
    ]


def write_shards(folder: RunFolder, images: Sequence[SampleImage], indices: Iterable[int]) -> None:
    """Write shards as an export does: what they add to the set, then the rows."""
    scope = Scope.of(folder.plan)
    for index in indices:
        batches = sample_batches(folder.plan, images, index)
        rows = sample_rows(folder.plan, images, index)
        parts = {"": channel_table(batches), **shard_parts(rows, batches, scope, _mask)}
        folder.write_shard(index, rows, parts)


def finish_run(folder: RunFolder, seconds: float) -> None:
    """Merge what the shards add, and write ``run.json``."""
    for index in folder.missing_maximised(1):
        folder.write_maximised(index, sample_maximised())
    merged = merge_set(folder.summaries, Scope.of(folder.plan))
    channels = merge_channels(folder.summaries())
    folder.finish(seconds, merged.tables, merged.summary, channels)


def build_run(
    path: Path,
    *,
    images: Sequence[SampleImage] = SAMPLE_IMAGES,
    shard_size: int = 8,
    methods: Sequence[str] = METHODS,
    layers: dict[str, int] | None = None,
    channels: Mapping[str, int] = CHANNELS,
    combined: Sequence[str] = (),
    target: str = "predicted",
    model: str = "resnet18",
    shards: int | None = None,
) -> Path:
    """Make a run through the real store.

    Args:
        path: the run folder.
        images: what it runs over.
        shard_size: images per shard.
        methods: names of map methods.
        layers: layer to side of its square maps; ``layer3`` 14 and ``layer4`` 7 where None.
        channels: layer to number of channels; 8 where it is not told. The last one of a layer of
            more than 64 is three times channel 1.
        combined: ``attention`` or ``fused``, beside the layers: of maps made from several.
        target: ``predicted``, or ``top-2`` for maps of two classes per image.
        model: name of the model.
        shards: write only the first so many, leaving the run partial; None finishes it.
    """
    plan = sample_plan(
        images,
        shard_size=shard_size,
        methods=methods,
        layers=layers,
        channels=channels,
        combined=combined,
        target=target,
        model=model,
    )
    with create_run(path, plan) as folder:
        folder.write_kernels(sample_kernels())
        write_shards(folder, images, range(len(plan.shards) if shards is None else shards))
        if shards is None:
            finish_run(folder, 1.5)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while modules are imported, and leave them out of it afterwards.

    Looking through two million objects takes 0.9 s, and doubles the time until the first test.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def browser_program() -> Callable[..., str]:
    """Find a browser by its programs' names; without one, skip, or fail where it is required."""

    def find(*names: str) -> str:
        found = next(filter(None, map(shutil.which, names)), None)
        if found is not None:
            return found
        if os.environ.get("EXPORTER_REQUIRE_BROWSER"):
            pytest.fail(f"{names[0]} is not installed")
        pytest.skip(f"no {names[0]}")

    return find


@pytest.fixture(scope="session")
def chromium(browser_program: Callable[..., str]) -> Iterator[Any]:
    """A headless Chromium: one for all tests, as playwright runs once in a process."""
    program = browser_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def firefox(
    browser_program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The installed Firefox, driven through its own protocol; one for the tests of a module."""
    program = browser_program("firefox-esr", "firefox")
    from tests.report.firefox import Firefox

    with Firefox(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A tab that fails the test on any message, error, dialog, or file that does not come."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    trouble: list[str] = []
    made.on("console", lambda message: trouble.append(message.text))
    made.on("pageerror", lambda error: trouble.append(str(error)))

    def failed(request: Any) -> None:
        # A picture still on its way when the page is left is given up, not missing.
        if request.failure != "net::ERR_ABORTED":
            trouble.append(f"failed: {request.url[:200]}")

    made.on("requestfailed", failed)
    made.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    made.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "about:"))
            else trouble.append(f"asked for {request.url}")
        ),
    )
    yield made
    context.close()
    assert trouble == []


@pytest.fixture(scope="session")
def until() -> Callable[[Any, str], None]:
    """Wait for a condition; playwright's own waiting uses eval, which the page's policy forbids."""

    def wait(page: Any, condition: str) -> None:
        said = ""
        for _ in range(400):
            try:
                if page.evaluate(condition):
                    return
            except Exception as error:  # a page on its way has no such element, or no context yet
                said = f"; it said {error}"
            time.sleep(0.025)
        pytest.fail(f"it never came to {condition}{said}")

    return wait


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what the exporter keeps of its user; the real one is left alone."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def hasty() -> Iterator[None]:
    """Do not wait until files are on the disk: a file that is written takes some 10 ms of it.

    Tests of the store do wait, and so does every process that tests start.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Give every test as many torch threads as the first: more than cores wait for one another."""
    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    yield
    if torch is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of about 20 images in 3 shards; copy it before changing anything in it."""
    return build_run(tmp_path_factory.mktemp("sample") / "a run 猫")


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """``build_run``: makes other runs, partial ones too."""
    return build_run


@pytest.fixture(scope="session")
def sampling() -> ModuleType:
    """This module, for its builders: tests cannot import one another."""
    return sys.modules[__name__]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.conftest OUT")
    sys.stdout.write(f"{os.fspath(build_run(Path(sys.argv[1])))}\n")
