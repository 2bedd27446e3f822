"""The controls on every page, of the overview and of the classes, and the links."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.report.desk import Desk, class_of_the_most, control, layer_page


@control("skip")
def skip(desk: Desk) -> None:
    desk.open("index.html")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.dataset.control") == "skip"
    desk.page.keyboard.press("Enter")
    desk.wait("document.activeElement.id === 'main'")


@control("brand")
def brand(desk: Desk) -> None:
    desk.open("layers.html")
    desk.control("brand").click()
    desk.wait("location.pathname.endsWith('/html/index.html')")


@control("page-link")
def page_link(desk: Desk) -> None:
    desk.open("index.html")
    links = desk.page.locator('[data-control="page-link"]').all()
    addresses = [link.get_attribute("href") for link in links]
    assert addresses[0] == "index.html"
    assert addresses[1] == "images.html"
    for address in addresses:
        desk.page.locator(f'nav [href="{address}"]').first.click()
        desk.wait(f"location.pathname.endsWith('/html/{address}')")
        here = desk.page.locator('[aria-current="page"]').first.get_attribute("href")
        assert here == address


@control("theme")
def theme(desk: Desk) -> None:
    desk.open("index.html")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    seen = {}
    for _ in range(3):
        desk.control("theme").click()
        seen[desk.control("theme").inner_text()] = desk.page.evaluate(background)
    assert set(seen) == {"Theme: auto", "Theme: light", "Theme: dark"}
    assert seen["Theme: light"] != seen["Theme: dark"]
    desk.control("theme").click()
    chosen = desk.page.evaluate(background)
    desk.open("methods.html")
    assert desk.page.evaluate(background) == chosen
    desk.page.evaluate("localStorage.clear()")


@control("strip-image")
def strip_image(desk: Desk) -> None:
    desk.open("index.html")
    address = desk.control("strip-image").get_attribute("href")
    desk.control("strip-image").click()
    desk.wait("document.getElementById('viewer')?.open")
    id = address.partition("image=")[2]
    assert desk.page.evaluate("location.hash").startswith(f"#image={id}")
    assert desk.text("#v-path") == next(row.path for row in desk.rows if row.id == id)


@control("finding")
def finding(desk: Desk) -> None:
    desk.open("index.html")
    links = desk.page.locator('[data-control="finding"]')
    names = links.locator("b").all_inner_texts()
    addresses = [link.get_attribute("href") for link in links.all()]
    assert names[:4] == ["Random weights", "Accuracy", "Calibration", "Confusion"]
    # What it found stands before everything else.
    first = desk.page.locator("main h2").first
    assert first.inner_text() == "What it found"
    for address in addresses:
        desk.open(address.partition("#")[0], f"#{address.partition('#')[2]}")
        assert desk.page.locator("h1").count() == 1
        if not address.startswith("images"):
            place = address.partition("#")[2]
            assert not place or desk.page.locator(f"#{place}").count() == 1, address
    wrong = sum(row.correct is False for row in desk.rows)
    desk.images("#" + addresses[1].partition("#")[2])
    desk.tiles(wrong)


@control("bins")
def bins(desk: Desk) -> None:
    desk.open("index.html")
    if desk.control("bins").count() == 0:
        pytest.fail("the sample has labels, so there is a calibration diagram")
    table = desk.page.locator("details:has([data-control=bins]) table")
    assert not table.is_visible()
    desk.control("bins").click()
    assert table.is_visible()
    assert table.locator("tbody tr").count() > 0


@control("find-class")
def find_class(desk: Desk) -> None:
    desk.open("classes.html")
    desk.control("find-class").fill("espresso")
    assert desk.page.locator("#classes tbody tr:visible").count() == 1


@control("class-page")
def class_page(desk: Desk) -> None:
    desk.open("classes.html")
    name = desk.control("class-page").inner_text()
    address = desk.control("class-page").get_attribute("href")
    desk.control("class-page").click()
    desk.wait(f"location.pathname.endsWith('/{address}')")
    assert name in desk.text("h1")


@control("class-images")
def class_images(desk: Desk) -> None:
    index, number = class_of_the_most(desk)
    desk.control("class-images").click()
    desk.wait("location.pathname.endsWith('/images.html')")
    desk.tiles(number)
    assert desk.control("class").input_value() == str(index)


@control("class-image")
def class_image(desk: Desk) -> None:
    class_of_the_most(desk)
    desk.control("class-image").click()
    desk.wait("document.getElementById('viewer')?.open")


@control("pair-images")
def pair_images(desk: Desk) -> None:
    desk.open("index.html")
    link = desk.control("pair-images")
    said = int(re.sub(r"\D", "", link.text_content()))
    link.click()
    desk.wait("location.pathname.endsWith('/images.html')")
    desk.tiles(said)


LINKS = {
    "all-classes": ("index.html", "Classes"),
    "flagged-images": ("index.html", "Images"),
    "layer-page": ("layers.html", None),
    "list-image": ("list/00000.html", "Images"),
    "method-page": ("index.html", "Methods"),
    "kernel-layer": ("kernels.html", "conv1"),
    "pair-class": ("index.html", None),
}
"""The page a link is on, and the heading of the page it leads to; its own text where None."""


@control(*LINKS)
def link(desk: Desk) -> None:
    for name, (page, heading) in LINKS.items():
        desk.open(page)
        one = desk.control(name)
        wanted, said = one.evaluate("a => a.href"), one.text_content()
        one.click()
        desk.wait(f"location.href.startsWith({wanted.partition('#')[0]!r})")
        assert desk.text("h1") == (heading or said), name
        if "#" in wanted:
            assert desk.page.evaluate("location.hash").startswith(wanted[wanted.index("#") :])


@control("up")
def up(desk: Desk) -> None:
    index, _ = class_of_the_most(desk)
    for page, above in (
        (f"classes/{index}.html", "Classes"),
        ("layers/0.html", "Layers"),
        ("list/00000.html", "Images"),
    ):
        desk.open(page)
        desk.control("up").click()
        desk.wait(f"document.querySelector('h1')?.textContent === {above!r}")


@control("neighbour")
def neighbour(desk: Desk) -> None:
    layer_page(desk)
    before = desk.text("h1")
    back = desk.page.locator('[data-control="neighbour"][rel="prev"]')
    name = back.inner_text().removeprefix("← ")
    back.click()
    desk.wait(f"document.querySelector('h1')?.textContent === {name!r}")
    desk.page.locator('[data-control="neighbour"][rel="next"]').click()
    desk.wait(f"document.querySelector('h1')?.textContent === {before!r}")


@control("image-list")
def image_list(desk: Desk) -> None:
    browser = desk.page.context.browser
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((desk.report / "images.html").as_uri())
    tab.locator('[data-control="image-list"]').click()
    assert tab.locator("h1").inner_text() == "Images 1 to 20"
    context.close()


@control("kept-image", "all-images")
def kept(desk: Desk) -> None:
    partial = desk.at("partial")
    partial.open("index.html")
    address = partial.control("kept-image").get_attribute("href")
    partial.control("kept-image").click()
    partial.wait("document.getElementById('viewer')?.open")
    assert partial.page.evaluate("location.hash").startswith("#" + address.partition("#")[2])
    partial.open("index.html")
    said = partial.control("all-images").inner_text()
    partial.control("all-images").click()
    partial.wait("document.querySelector('button.tile')")
    assert said == f"All {partial.text('#count')}" == "All 16 images"


@control("shards-folder", "writer-folder")
def folders(desk: Desk) -> None:
    partial = desk.at("partial")
    for name, folder in (("shards-folder", "shards"), ("writer-folder", "tensorboard")):
        partial.open("index.html")
        address = partial.control(name).evaluate("a => a.href")
        assert Path(unquote(urlsplit(address).path)) == partial.run.path / folder
        assert (partial.run.path / folder).is_dir()


@control("tensorboard-server", "paper")
def elsewhere(desk: Desk) -> None:
    # There is no network here: where they would lead is what can be said.
    desk.open("index.html")
    assert desk.control("tensorboard-server").get_attribute("href") == "http://localhost:6006"
    desk.open("methods.html")
    method = desk.run.plan.methods[0]
    assert desk.control("paper").get_attribute("href") == method.url
    assert desk.control("paper").inner_text() == method.paper
    assert desk.control("paper").get_attribute("rel") == "noreferrer"
