"""Names, in TensorBoard too, and the links that lead to them: what the writers agree on.

Run: ``model@checkpoint/method``; tag: ``<layer>/<path>@<id>``. The id is there so that a tag is
unique and a link can find an image by its id alone. Imports no writer.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from exporter.records import MaximisedPicture, ModelRecord, Row

MONTAGE = "montage"
ACTIVATIONS = "activations"
MAXIMISED = "maximised"
CHANNELS = "strongest channels"
"""Group of the activation sheets; sorts after most layers, whose cards stay three in a row."""

_NAME_BYTES = 120
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+\-.!|<>&]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}


def run_name(model: ModelRecord) -> str:
    """Return ``model@checkpoint`` as one safe folder name; the weights where no file was loaded.

    A name cannot leave its folder: separators and whatever is not a letter, a digit or one of
    ``._@+=-`` become underscores.
    """
    return safe_name(f"{model.name}@{model.checkpoint or model.weights}")


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


def image_tag(group: str, row: Row) -> str:
    """Return the tag of an image: ``<group>/<path>@<id>``.

    Args:
        group: a layer's name (``""`` is shown as ``input``), or `MONTAGE`.
        row: the image.
    """
    return tag_text(f"{group or 'input'}/{row.path}@{row.id}")


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
    """Return a link to TensorBoard's images, filtered.

    Args:
        base: web address of the server; None gives a link that works inside TensorBoard.
        tag_regex: regular expression for the tags; escape names with `escape_regex`.
        run_regex: regular expression for the runs.
    """
    link = f"{(base or '').rstrip('/')}/#images&tagFilter={quote(tag_regex, safe='')}"
    return link + (f"&regexInput={quote(run_regex, safe='')}" if run_regex else "")


def image_link(base: str | None, row: Row) -> str:
    """Return a link to every card of one image in TensorBoard."""
    return images_link(base, escape_regex(f"@{row.id}") + "$")


def report_page(report_url: str, page: str = "index.html") -> str:
    """Return the address of a page of the published report, given its folder or its first page."""
    return report_url.removesuffix("index.html").rstrip("/") + "/" + page


def report_image_link(report_url: str, row: Row) -> str:
    """Return the address of one image's view in the published report."""
    return f"{report_page(report_url, 'images.html')}#image={quote(row.id, safe='')}"


def channel_name(picture: MaximisedPicture) -> str:
    """Return what names a maximised channel within its layer: ``channel 12``, ``281 tabby``."""
    if picture.layer != "output":
        return f"channel {picture.channel}"
    return f"{picture.channel} {picture.name}".strip()


def how(picture: MaximisedPicture) -> str:
    """Return the prior and the settings of a maximised picture in words."""
    return f"{'no' if picture.prior == 'none' else picture.prior} prior, {picture.settings}"
