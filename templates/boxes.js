// Over the large picture: boxes and masks that are given or predicted, the one explained, or the predicted region.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const now = exporter.now;
  const { values: state } = exporter.state;

  const make = (tag, attributes, content) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (content !== undefined) node.textContent = content;
    return node;
  };
  const known = () => now.shard && now.shard.boxes[exporter.data.rowOf(now.position)];
  // A box of the original, in pixels of the model's view.
  const placed = (box) => {
    const [left, top, right, bottom] = now.shard.crop[exporter.data.rowOf(now.position)], [height, width] = exporter.index.view;
    const x = width / (right - left), y = height / (bottom - top);
    return { x: (box[0] - left) * x, y: (box[1] - top) * y, width: Math.max(0, box[2] - box[0]) * x, height: Math.max(0, box[3] - box[1]) * y };
  };
  const outline = (svg, box, kind) => svg.append(make("rect", { ...placed(box), class: "under" }), make("rect", { ...placed(box), class: kind }));

  // The edges between the cells of a region and those beside it, as a path over the model's view.
  const edges = ([rows, columns, text]) => {
    const bits = exporter.paint.bytes(text), [height, width] = exporter.index.view, y = height / rows, x = width / columns;
    const inside = (i, j) => i >= 0 && i < rows && j >= 0 && j < columns && ((bits[(i * columns + j) >> 3] >> (7 - ((i * columns + j) & 7))) & 1) === 1;
    let path = "";
    for (let i = 0; i <= rows; i++) for (let j = 0; j <= columns; j++) {
      if (inside(i, j) !== inside(i - 1, j)) path += "M" + j * x + " " + i * y + "h" + x;
      if (inside(i, j) !== inside(i, j - 1)) path += "M" + j * x + " " + i * y + "v" + y;
    }
    return path;
  };

  // A name within the view: where a region's first row begins, or at a box; given ones at the lower edge.
  // Letters are as high as those of the page at any size of the picture, and within a small one an eighteenth of it.
  const letters = (svg) => Math.min(exporter.index.view[1] / 18, 0.8 * parseFloat(getComputedStyle(document.documentElement).fontSize) * exporter.index.view[1] / (svg.clientWidth || 300));
  const write = (svg, text, x, y, kind, above = false) => {
    const size = letters(svg), down = above ? y - size / 2 : Math.max(0, y) + 1.2 * size;
    if (text) svg.append(make("text", { x: Math.max(0, x) + size / 4, y: Math.min(exporter.index.view[0] - 2, Math.max(size, down)), "font-size": size, class: kind }, text));
  };
  const nameRegion = (svg, [rows, columns, text], name, kind) => {
    const bits = exporter.paint.bytes(text), [height, width] = exporter.index.view;
    const cells = [...Array(rows * columns).keys()].filter((at) => (bits[at >> 3] >> (7 - (at & 7))) & 1);
    if (!cells.length) return;
    const at = kind === "given" ? cells.at(-1) : cells[0];
    const row = Math.floor(at / columns), first = cells.find((cell) => Math.floor(cell / columns) === row) % columns;
    write(svg, name, first * width / columns, kind === "given" ? (row + 1) * height / rows : row * height / rows, "of-" + kind, kind === "given");
  };

  const draw = (pane, map) => {
    const svg = $(pane + "-outlines"), [given, predicted, regions] = known(), said = now.shard.p[exporter.data.rowOf(now.position)];
    const explained = map && /^box:(\d+)$/.exec(map.target);
    svg.setAttribute("viewBox", "0 0 " + exporter.index.view[1] + " " + exporter.index.view[0]);
    if (map && regions[map.target]) for (const kind of ["under", "region"]) svg.append(make("path", { d: edges(regions[map.target]), class: kind }));
    if (regions.given) for (const kind of ["under", "given"]) svg.append(make("path", { d: edges(regions.given), class: kind }));
    const label = exporter.select.labelName(now.position);
    if (map && regions[map.target]) nameRegion(svg, regions[map.target], exporter.targetName(map.target), "region");
    if (regions.given) nameRegion(svg, regions.given, label, "given");
    for (const box of given) {
      outline(svg, box, "given");
      const { x, y, height } = placed(box);
      write(svg, label, x, y + height, "of-given", true);
    }
    predicted.forEach((box, number) => {
      outline(svg, box, explained && Number(explained[1]) === number ? "predicted explained" : "predicted");
      const { x, y } = placed(box), name = exporter.index.names[said[2 * number]] || "class " + said[2 * number];
      write(svg, name + " " + exporter.score(said[2 * number + 1]), x, y, "of-predicted");
    });
  };
  const show = () => {
    const some = Boolean(known()), on = some && state.boxes !== "off";
    for (const [pane, map] of [["v", now.current], ["w", now.other]]) {
      $(pane + "-outlines").replaceChildren();
      if (on) draw(pane, map);
    }
    const [given, predicted] = known() || [[], []];
    $("v-boxes").hidden = !some;
    $("v-boxes").textContent = given.length || predicted.length ? "Boxes" : "Regions";
    $("v-boxes").setAttribute("aria-pressed", String(on));
    $("v-boxes-legend").hidden = !on;
    for (const part of $("v-boxes-legend").children) part.hidden = !$("panes").querySelector(".boxes ." + part.dataset.kind);
  };
  exporter.boxes = { show, known };
})();
