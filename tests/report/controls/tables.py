"""The controls of tables, and of the single file."""

from __future__ import annotations

import numpy as np

from exporter.render import decode_image, kernel_places
from tests.report.desk import Desk, control, layer_page


@control("channel-go")
def channel_go(desk: Desk) -> None:
    layer_page(desk)
    desk.control("channel-go").fill("17")
    desk.page.keyboard.press("Enter")
    desk.wait("location.hash === '#c17'")
    assert desk.page.locator("#c17").bounding_box()["y"] < 900
    desk.control("channel-go").fill("99")
    desk.page.keyboard.press("Enter")
    desk.wait("document.getElementById('go-said').textContent === 'Channels are 0 to 19.'")


@control("close-up")
def close_up(desk: Desk) -> None:
    layer_page(desk)
    picture = "document.querySelector('.tops img').getBoundingClientRect().width"
    before = desk.page.evaluate(picture)
    desk.control("close-up").click()
    desk.wait(f"{picture} > {before}")
    assert desk.control("close-up").get_attribute("aria-pressed") == "true"


@control("made")
def made(desk: Desk) -> None:
    layer_page(desk)
    address = desk.control("made").get_attribute("href")
    desk.control("made").click()
    desk.wait(f"location.href.endsWith('{address}')")
    shown = desk.page.locator("tr:target .made-small")
    assert shown.bounding_box()["y"] < 900
    assert shown.get_attribute("alt") == desk.page.locator(".made img").first.get_attribute("alt")


@control("top-image")
def top_image(desk: Desk) -> None:
    layer_page(desk)
    address = desk.control("top-image").get_attribute("href")
    desk.control("top-image").click()
    desk.wait("document.getElementById('viewer')?.open")
    assert desk.page.evaluate("location.hash").startswith("#" + address.partition("#")[2])


@control("channel-part")
def channel_part(desk: Desk) -> None:
    wide = desk.at("wide")
    name = layer_page(wide)
    parts = wide.page.locator('[data-control="channel-part"]')
    assert parts.all_inner_texts() == ["0–255", "256–299"]
    parts.last.click()
    wide.wait(f"location.pathname.endsWith('/{name.removesuffix('.html')}-2.html')")
    channels = wide.page.locator("table.channels tbody tr").evaluate_all("l => l.map(r => r.id)")
    assert channels == [f"c{number}" for number in range(256, 300)]


@control("like-channel")
def like_channel(desk: Desk) -> None:
    wide = desk.at("wide")
    layer_page(wide)
    link = wide.page.locator('#c1 [data-control="like-channel"]')
    assert link.inner_text() == "299"
    link.click()
    wide.wait("location.pathname.endsWith('-2.html') && location.hash === '#c299'")
    wide.wait("document.getElementById('c299').getBoundingClientRect().bottom < innerHeight")


@control("sort-column")
def sort_column(desk: Desk) -> None:
    desk.open("layers.html")
    desk.page.get_by_role("button", name="Parameters").click()
    numbers = [
        int(text.replace(",", "").replace("—", "0"))
        for text in desk.page.locator("#layers tbody td.num").all_inner_texts()
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert desk.page.locator('[aria-sort="descending"]').count() == 1


@control("layer-card", "all-layers")
def cards(desk: Desk) -> None:
    desk.open("layers.html")
    names = desk.page.locator('[data-control="layer-card"]').all_inner_texts()
    assert names == list(desk.run.plan.explained)
    folded = desk.page.locator("details.all")
    assert folded.evaluate("one => one.open") == (desk.page.locator("#layers tr").count() <= 25)
    before = folded.evaluate("one => one.open")
    desk.control("all-layers").click()
    assert folded.evaluate("one => one.open") != before
    desk.control("layer-card").click()
    desk.wait(f"document.querySelector('h1')?.textContent === {names[0]!r}")


@control("kernel-channel")
def kernel_channel(desk: Desk) -> None:
    desk.open("kernels.html")
    links = desk.page.locator('[data-control="kernel-channel"]')
    assert links.count() == 12
    # What is clicked at is the kernel: its row lies on the picture where it was drawn.
    sheet = desk.page.locator("figure:has([data-control=kernel-channel]) img")
    links.nth(5).scroll_into_view_if_needed()
    box, high = sheet.bounding_box(), sheet.evaluate("one => one.naturalHeight")
    y = box["y"] + (2 + 5 * (27 + 2) + 13) * box["height"] / high
    desk.page.mouse.click(box["x"] + 0.05 * box["width"], y)
    desk.wait("location.hash === '#c5' && document.querySelector('#c5')")
    assert desk.text("h1") == "layer3"
    # Where no channels are recorded, the page has the kernel itself, large, by its number.
    live = desk.at("live")
    live.open("kernels.html")
    live.page.locator('[data-control="kernel-channel"]').nth(4).click()
    live.wait("location.hash === '#c4' && document.querySelector('#c4:target')")
    assert live.text("#c4") == "4"
    assert "--activation 0 " in live.text("main")
    assert live.page.locator("#c4 svg").bounding_box()["width"] >= 90
    # What is drawn there is that kernel, its middle the colour that the sheet has.
    record = next(iter(live.run.kernels()))
    _, places = kernel_places(record.shape, record.shown)
    left, top, wide, high = places[4]
    sheet = decode_image(live.run.kernel_sheet(record))
    shown = decode_image(live.page.locator("#c4 svg").screenshot())
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
    np.testing.assert_allclose(middle, sheet[top + high // 2, left + wide // 2], atol=2)


@control("find-layer")
def find_layer(desk: Desk) -> None:
    desk.open("layers.html")
    desk.control("find-layer").fill("linear")
    assert desk.page.locator("#layers tbody tr:visible").count() == 1


@control("single-list")
def single_list(desk: Desk) -> None:
    desk.open("report.html")
    desk.control("single-list").click()
    desk.wait("document.querySelector('.leaf.turned-to').dataset.page === 'list'")
    assert desk.page.locator(".rows tbody tr:visible").count() == 20


@control("driving-channel")
def driving_channel(desk: Desk) -> None:
    desk = desk.at("live")
    index = next(desk.run.rows()).predictions[0].index
    desk.open(f"classes/{index}.html")
    head = desk.run.head()
    assert head is not None
    means = np.array([row.mean for row in desk.run.channels("3")])
    first = int(np.abs(head[index, :-1] * means).argmax())
    assert desk.control("driving-channel").inner_text() == f"channel {first}"
    desk.control("driving-channel").click()
    desk.wait(f"location.hash === '#c{first}'")
