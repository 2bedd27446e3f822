"""Names from outside stay text: in paths, labels, classes, layers, settings and the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exporter.store import create_run
from exporter.summaries import channel_table, merge_channels

pytestmark = pytest.mark.browser

PAYLOADS = (
    "<script>hit()</script>",
    "</script><script>hit()</script>",
    "<img src=x onerror=hit()>",
    '"><img src=x onerror=hit()>',
    "'><svg onload=hit()>",
    "<svg/onload=hit()>",
    "<svg><script>hit()</script></svg>",
    "<iframe src=javascript:hit()></iframe>",
    "<iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "javascript:hit()",
    '" onmouseover="hit()',
    "' onfocus='hit()' autofocus='",
    "` onmouseover=`hit()",
    "</title><script>hit()</script>",
    "</style><script>hit()</script>",
    "</textarea><script>hit()</script>",
    "</noscript><script>hit()</script>",
    "</select><img src=x onerror=hit()>",
    "</main></body><script>hit()</script>",
    "--><script>hit()</script>",
    "]]><script>hit()</script>",
    "<!--<script>hit()",
    "<body onload=hit()>",
    "<details open ontoggle=hit()>",
    "<link rel=stylesheet href=http://localhost:9/x.css>",
    "<base href=http://localhost:9/>",
    '<meta http-equiv=refresh content="0;url=http://localhost:9/">',
    "<object data=http://localhost:9/x></object>",
    "<form action=http://localhost:9/><button>go",
    "{{ 7 * 7 }}{% raw %}",
    "${hit()}",
    "');hit();('",
    '");hit();("',
    "\\u003cscript>hit()\\u003c/script>",
    "\\');hit();//",
    "line\u2028hit()\u2029end",
    "&lt;script&gt;hit()&lt;/script&gt;",
    "__proto__",
    "constructor",
    "<b>bold</b>",
)


@pytest.fixture(scope="module")
def hostile(
    sampling: ModuleType, writing: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report of a run whose every name is a payload, with its single file."""
    images = tuple(
        sampling.SampleImage(
            f"{payload} {place}.jpg",
            PAYLOADS[(place + 1) % len(PAYLOADS)],
            error=payload if place % 10 == 9 else None,
        )
        for place, payload in enumerate(PAYLOADS)
    )
    rename = dict(zip(("layer3", "layer4"), PAYLOADS[2:4], strict=True))
    plan = sampling.sample_plan(images, shard_size=64)
    first = PAYLOADS[0]
    plan = replace(
        plan,
        model=replace(
            plan.model,
            name=first,
            spec=PAYLOADS[1],
            weights=PAYLOADS[2],
            checkpoint=PAYLOADS[3],
            output=PAYLOADS[4],
            classes=PAYLOADS,
            outputs=len(PAYLOADS),
        ),
        layers=tuple(
            replace(one, name=rename.get(one.name, one.name + PAYLOADS[5]), type=PAYLOADS[6])
            for one in plan.layers
        ),
        explained=tuple(rename.values()),
        recorded=tuple(rename.values()),
        layer_reason=PAYLOADS[7],
        methods=tuple(
            replace(
                one,
                title=PAYLOADS[8 + at],
                url=PAYLOADS[9],
                paper=PAYLOADS[11],
                formula=PAYLOADS[12],
                caveats=PAYLOADS[13],
                shows=PAYLOADS[14],
                cost=PAYLOADS[15],
                settings={PAYLOADS[16]: PAYLOADS[17]},
            )
            for at, one in enumerate(plan.methods)
        ),
        settings={**plan.settings, PAYLOADS[18]: PAYLOADS[19]},
        image_set=PAYLOADS[20],
        label_match=PAYLOADS[21],
        label_index={name: place for place, name in enumerate(PAYLOADS[:8])},
        execution={PAYLOADS[22]: PAYLOADS[23]},
        versions={PAYLOADS[24]: PAYLOADS[25], "exporter": PAYLOADS[26]},
        command=" ".join(PAYLOADS),
        notes=PAYLOADS,
    )
    path = tmp_path_factory.mktemp("hostile") / "run"
    rows = [
        replace(
            row,
            predictions=tuple(
                replace(one, name=PAYLOADS[(place + at) % len(PAYLOADS)])
                for at, one in enumerate(row.predictions)
            ),
        )
        for place, row in enumerate(sampling.sample_rows(plan, images, 0))
    ]
    with create_run(path, plan) as folder:
        folder.write_kernels(
            [replace(one, name=PAYLOADS[at]) for at, one in enumerate(sampling.sample_kernels())]
        )
        channels = channel_table(sampling.sample_batches(plan, images, 0))
        folder.write_shard(0, rows, {"": channels})
        folder.finish(1.5, channels=merge_channels(folder.summaries()))
    return writing(path, single_file=True)


INJECTED = """[...document.querySelectorAll(
  "script:not([src]), iframe, object, embed, base, form[action], main link, main meta, main style"
)].map((one) => one.outerHTML.slice(0, 80))"""
HANDLERS = """[...document.querySelectorAll("*")].filter((one) =>
  [...one.attributes].some((given) => given.name.startsWith("on") || given.name === "style"
    && !one.closest("#grid, #viewer, .tops")
    || ["href", "src", "action", "formaction", "data", "xlink:href"].includes(given.name)
    && given.value.trim().startsWith("javascript:"))
).map((one) => one.outerHTML.slice(0, 80))"""


def test_hostile_names_stay_text_on_every_page(
    page: Any, hostile: Path, until: Callable[[Any, str], None]
) -> None:
    page.add_init_script("window.hits = 0; window.hit = () => { window.hits++; };")
    assert len(PAYLOADS) >= 30
    for file in sorted(hostile.rglob("*.html")):
        page.goto(file.as_uri())
        if file.name == "images.html":
            until(page, "document.querySelector('button.tile')")
        assert page.evaluate("window.hits") == 0, file.name
        if file.name != "report.html":  # its own scripts are inline, allowed by their hashes
            assert page.evaluate(INJECTED) == [], file.name
        assert page.evaluate(HANDLERS) == [], file.name
        assert page.locator("main b:text-is('bold'), main img[src='x']").count() == 0
    assert page.evaluate("({}).hit === undefined && Object.prototype.polluted === undefined")


def test_hostile_names_stay_text_in_the_grid_and_the_viewer(
    page: Any, hostile: Path, until: Callable[[Any, str], None]
) -> None:
    page.add_init_script("window.hits = 0; window.hit = () => { window.hits++; };")
    page.goto((hostile / "images.html").as_uri())
    until(page, "document.querySelectorAll('button.tile').length > 10")
    page.locator("button.tile").first.click()
    seen = set()
    for _ in PAYLOADS:
        until(page, "document.getElementById('v-path').textContent !== ''")
        path = page.locator("#v-path").text_content()
        seen.add(path)
        assert page.evaluate("window.hits") == 0, path
        assert page.evaluate(INJECTED) == [], path
        page.keyboard.press("ArrowRight")
        until(
            page,
            "document.getElementById('v-next').disabled || "
            f"document.getElementById('v-path').textContent !== {_js(path)}",
        )
    assert seen == {f"{payload} {place}.jpg" for place, payload in enumerate(PAYLOADS)}
    until(page, "document.getElementById('v-next').disabled")


def _js(text: str) -> str:
    import json

    return json.dumps(text)


def test_hostile_names_stay_text_in_firefox(firefox: Any, hostile: Path) -> None:
    firefox.console.clear()
    for file in sorted(hostile.rglob("*.html")):
        firefox.goto(file.as_uri())
        assert firefox.console == [], file.name
        assert firefox.requests == [], file.name
        if file.name != "report.html":
            assert firefox.evaluate(INJECTED) == [], file.name
        assert firefox.evaluate(HANDLERS) == [], file.name
