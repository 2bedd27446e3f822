"""Names, in TensorBoard too, and the links that lead to them: what the writers agree on.

TensorBoard compares along the steps of a run, and across runs that have a tag in common. So its run
is ``model/method``, with the checkpoint after the model only where no step is known, and a tag is
``stage/path``: stages (`stage_names`) are called the same in every architecture. Imports no writer.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Container
from urllib.parse import quote, urlencode

from exporter.paths import without_folders
from exporter.records import MaximisedPicture, ModelRecord, Plan, Row

DEEPEST = "deepest"
INPUT = "input"
EMBEDDINGS = "embeddings"
MONTAGE = "montage"
MAXIMISED = "maximised"
CHANNELS = "strongest channels"
"""Group of the activation sheets: its cards come after those of the maps."""

_NAME_BYTES = 120
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+\-.!|<>&]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}


def run_name(model: ModelRecord, step: int | None = None) -> str:
    """Return ``model@checkpoint`` as one safe folder name; the weights where no file was loaded.

    A name cannot leave its folder: separators and whatever is not a letter, a digit or one of
    ``._@+=-`` become underscores. A checkpoint that is told by its step needs no name.
    """
    which = "" if step is not None else f"@{model.checkpoint or model.weights}"
    return safe_name(model.name + which)


def step_of(model: ModelRecord, step: int | None) -> int | None:
    """Return the step that is given, or else the checkpoint's own, if it has one."""
    return model.step if step is None else step


def stage_names(plan: Plan) -> dict[str, str]:
    """Return the short name of every place of a run that has maps, by its layer.

    ``deepest`` is where a method's map stands for an image; methods that have one map only have it
    there. The others are ``stage-K`` for a stride of 2 to the power of K, and ``stage-K.2``, … for
    the shallower ones of the same stride. So two architectures share them.
    """
    names = {"": DEEPEST, "attention": DEEPEST, "fused": "fused", plan.deepest: DEEPEST}
    height, width = plan.model.preprocessing.size
    outputs = {layer.name: (layer.output or ())[-2:] for layer in plan.layers}
    seen: Counter[str] = Counter()
    for layer in reversed(plan.layers_of_the_model):
        if layer in names:
            continue
        laid = plan.layouts.get(layer)  # runs of the first version have none
        rows, columns = (laid.height, laid.width) if laid else (*outputs.get(layer, ()), 0, 0)[:2]
        stride = math.sqrt(height * width / rows / columns) if rows and columns else 1.0
        name = f"stage-{max(0, round(math.log2(stride)))}"
        seen[name] += 1
        names[layer] = name if seen[name] == 1 else f"{name}.{seen[name]}"
    return names


def shown_path(path: str) -> str:
    """Return an image's path as others may see it: of an absolute one, the last part."""
    return tag_text(without_folders(path))


def shared_paths(plan: Plan) -> frozenset[str]:
    """Return the paths, as they are shown, that several images of a run have."""
    counts = Counter(shown_path(entry.path) for entry in plan.images)
    return frozenset(path for path, count in counts.items() if count > 1)


def safe_name(text: str) -> str:
    """Return text as one component of a path: never empty, hidden, ``..`` or too long.

    >>> safe_name("../../etc/passwd"), safe_name("gradcam++"), safe_name("")
    ('_.._etc_passwd', 'gradcam++', '_')
    """
    kept = "".join(
        sign if sign.isalnum() or sign in "._@+=-" else "_"
        for sign in unicodedata.normalize("NFC", text)
    )
    short = kept.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore")
    return short.strip(".") or "_"


def image_tag(group: str, row: Row, shared: Container[str] = ()) -> str:
    """Return the tag of an image: ``<group>/<path>``.

    Args:
        group: a stage, or `MONTAGE`.
        row: the image.
        shared: paths of several images, whose ids are told too.
    """
    path = shown_path(row.path)
    return f"{tag_text(group)}/{path}{f'@{row.id}' if path in shared else ''}"


def tag_text(text: str) -> str:
    """Return text that can be a tag: TensorBoard cannot show pictures of one that JSON escapes.

    Its data server answers ``expected a borrowed string`` for a tag with a quote or a backslash.

    >>> tag_text('a "b"')
    "a 'b'"
    """
    return plain(text).replace('"', "'").replace("\\", "/")


def plain(text: str) -> str:
    """Return text that any UTF-8 field takes, on one line: controls become spaces."""
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        " " if unicodedata.category(sign) in {"Cc", "Zl", "Zp"} else sign for sign in whole
    )


def escape_regex(text: str) -> str:
    r"""Escape what is special in a JavaScript regular expression, and nothing else.

    >>> escape_regex("layer4/a (1).jpg")
    'layer4/a \\(1\\)\\.jpg'
    """
    return _SPECIAL.sub(r"\\\g<0>", text)


def escape_markdown(text: str) -> str:
    r"""Escape text so that Markdown shows it as it is, on one line, in a table too.

    >>> escape_markdown("a_b <i>")
    'a\\_b &lt;i&gt;'
    """
    return _MARKDOWN.sub(lambda sign: _ENTITIES.get(sign.group(), "\\" + sign.group()), plain(text))


def code(text: str) -> str:
    """Return text that can stand between backticks, also in a table."""
    return plain(text).replace("`", "'").replace("|", "¦")


def web(address: str) -> str:
    """Return an http(s) address that can stand in a Markdown link, or ``#`` for any other."""
    if not address.startswith(("http://", "https://")):
        return "#"
    return quote(plain(address), safe=":/?#[]@!$&'*+,;=%~-._")


def cited(paper: str, url: str) -> str:
    """Return a paper in Markdown, as a link where it has a web address."""
    address = web(url)
    return escape_markdown(paper) if address == "#" else f"[{escape_markdown(paper)}]({address})"


def images_link(base: str | None, tag_regex: str, run_regex: str = "") -> str:
    """Return a link to TensorBoard's filtered images; without a base, one from inside it."""
    link = f"{(base or '').rstrip('/')}/#images&tagFilter={quote(tag_regex, safe='')}"
    return link + (f"&regexInput={quote(run_regex, safe='')}" if run_regex else "")


def image_link(base: str | None, row: Row) -> str:
    """Return a link to every card of one image in TensorBoard."""
    path, id = escape_regex(shown_path(row.path)), escape_regex(row.id)
    return images_link(base, f"^[^/]+/{path}(@{id})?$")


def run_regex(name: str, within: str = "") -> str:
    """Return a regular expression for runs, wherever their log lies in the one that is served."""
    return f"(^|/){escape_regex(name)}{within}$"


def steps_link(base: str | None) -> str:
    """Return a link to TensorBoard's time series, where a slider moves along the steps.

    Curves are pinned above the pictures, of which the deepest stage comes first: with *Link by
    step*, their mark moves the sliders of all of them. A filter would hide what is pinned.
    """
    tags = ("set/accuracy", "set/agreement")
    pinned = json.dumps([{"plugin": "scalars", "tag": tag} for tag in tags], separators=(",", ":"))
    asked = urlencode({"smoothing": 0, "pinnedCards": pinned}, quote_via=quote)
    return f"{(base or '').rstrip('/')}/?{asked}#timeseries"


def report_page(report_url: str, page: str = "index.html") -> str:
    """Return the address of a page of the published report, given its folder or its first page."""
    return report_url.removesuffix("index.html").rstrip("/") + "/" + page


def report_image_link(report_url: str, row: Row) -> str:
    """Return the address of one image's view in the published report."""
    return f"{report_page(report_url, 'images.html')}#image={quote(row.id, safe='')}"


def class_name(model: ModelRecord, index: int) -> str:
    """Return the name of a class, or ``class 1`` where the model has no names."""
    return model.classes[index] if index < len(model.classes) else f"class {index}"


def channel_name(picture: MaximisedPicture) -> str:
    """Return what names a maximised channel within its layer: ``channel 12``, ``281 tabby``."""
    if picture.layer != "output":
        return f"channel {picture.channel}"
    return f"{picture.channel} {picture.name}".strip()


def how(picture: MaximisedPicture) -> str:
    """Return the prior and the settings of a maximised picture in words."""
    return f"{'no' if picture.prior == 'none' else picture.prior} prior, {picture.settings}"
