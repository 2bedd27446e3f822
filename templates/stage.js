// The large picture: a map over its photograph, or two maps of one image side by side or wiped one over
// the other; their colour bars, captions, and the value under the pointer.
"use strict";
window.exporter = window.exporter || {};
(() => {
  const $ = (id) => document.getElementById(id);
  // What is open: filled by viewer.js, read by the files beside it.
  const now = { position: -1, shard: null, maps: [], current: null, other: null };
  const { values: state } = exporter.state;
  let probe = null;

  const settings = (map) => ({ rectify: exporter.data.methodOf(map).relu, colour: state.colour, threshold: Number(state.threshold) / 100, fade: state.fade !== "even" });
  const ends = (map) => {
    const centred = state.colour === "diverging";
    return exporter.paint.range(map.values(), settings(map).rectify && !centred, centred);
  };
  const rangeText = (map) => exporter.number(map.lo) + " to " + exporter.number(map.hi);
  // A box is told by its number, and by what it is predicted as.
  const targetOf = ({ target }) => {
    const box = /^box:(\d+)$/.exec(target), name = box && exporter.index.names[now.shard.p[exporter.data.rowOf(now.position)][2 * box[1]]];
    return exporter.targetName(target) + (name ? " (" + name + ")" : "");
  };
  const describe = (map) => exporter.data.methodOf(map).title + " at " + exporter.layerWords(exporter.index.layers[map.layer]) + " for " + targetOf(map);
  const words = (map) => {
    const capped = map.height !== map.fullHeight || map.width !== map.fullWidth;
    return describe(map) + ". Raw values " + rangeText(map) + ", " +
      map.fullHeight + " × " + map.fullWidth + " cells" + (capped ? " (averaged to " + map.height + " × " + map.width + ")" : "") +
      (exporter.data.methodOf(map).relu && map.lo < 0 && state.colour !== "diverging" ? "; negative values are drawn as 0" : "") +
      (map.flags.length ? ". Flagged: " + map.flags.join(", ") : "") + ".";
  };
  const comparing = () => state.compare === "side" || state.compare === "wipe";

  // ------------------------------------------------------------ one pane: "v", or "w" beside it
  const raw = { v: null, w: null };
  const mapOf = (pane) => pane === "v" ? now.current : now.other;

  const draw = (pane) => {
    const map = mapOf(pane), [height, width] = exporter.index.view, canvas = $(pane + "-heat");
    raw[pane] = null;
    $(pane + "-legend").hidden = !map;
    const photograph = "Photograph " + exporter.index.paths[now.position] + ", " + [exporter.select.className(now.position), exporter.score(exporter.index.score[now.position])].filter(Boolean).join(" ");
    $(pane + "-img").alt = photograph + (map ? ", with " + describe(map) + " over it" : "");
    if (!map) {
      exporter.paint.release(canvas);
      $(pane + "-caption").textContent = "The photograph alone, as the model sees it.";
      return;
    }
    exporter.paint.draw(canvas, map, height, width, settings(map));
    canvas.style.opacity = Number(state.opacity) / 100;
    raw[pane] = exporter.paint.resize(map.values(), map.height, map.width, height, width);
    const [lo, hi] = ends(map);
    exporter.paint.ramp($(pane + "-ramp"), state.colour);
    $(pane + "-lo").textContent = exporter.number(lo);
    $(pane + "-hi").textContent = exporter.number(hi);
    $(pane + "-caption").textContent = words(map);
  };
  const show = () => {
    const both = comparing();
    for (const name of ["side", "wipe"]) $("panes").classList.toggle(name, state.compare === name);
    $("viewer").classList.toggle("beside", state.compare === "side");
    for (const id of ["w-frame", "w-words", "v-left", "v-with-field"]) $(id).hidden = !both;
    $("v-divider").hidden = $("v-wipe-field").hidden = state.compare !== "wipe";
    wipe();
    draw("v");
    if (both) draw("w"); else { raw.w = null; exporter.paint.release($("w-heat")); }
    exporter.boxes.show();
    reflect();
    point(probe);
  };
  const reflect = () => {
    for (const [id, text] of [["opacity", state.opacity + " %"], ["threshold", state.threshold + " % of the range"], ["wipe", state.wipe + " %"]]) {
      $("v-" + id).value = state[id];
      $("v-" + id).setAttribute("aria-valuetext", text);
      $("v-" + id + "-out").textContent = text;
    }
    $("v-colour").value = state.colour;
    $("v-geometry").value = state.geometry || "";
    $("v-compare").value = state.compare || "";
    $("v-with").value = now.other ? now.other.method + " " + now.other.layer : "-";
  };
  const wipe = () => {
    const share = Number(state.wipe) + "%";
    $("v-divider").style.left = share;
    $("w-frame").style.clipPath = state.compare === "wipe" ? "inset(0 0 0 " + share + ")" : "";
  };

  // ------------------------------------------------------------ geometry
  // The original's frame around the model's view, both in the original's pixels.
  const shape = () => {
    const row = exporter.data.rowOf(now.position);
    const size = now.shard && now.shard.size[row], crop = now.shard && now.shard.crop[row];
    return size && crop ? { size, crop } : null;
  };
  const frame = () => {
    const original = state.geometry === "original" && shape(), [height, width] = exporter.index.view;
    for (const pane of ["v", "w"]) {
      const place = $(pane + "-placeholder").style, box = $(pane + "-frame").style;
      $(pane + "-frame").classList.toggle("original", Boolean(original));
      for (const name of ["left", "top", "width", "height"]) place[name] = "";
      box.aspectRatio = original ? original.size.join(" / ") : width + " / " + height;
      box.setProperty("--ratio", original ? original.size[0] / original.size[1] : width / height);
      if (!original) continue;
      const { size: [w, h], crop: [left, top, right, bottom] } = original;
      place.left = 100 * left / w + "%";
      place.top = 100 * top / h + "%";
      place.width = 100 * (right - left) / w + "%";
      place.height = 100 * (bottom - top) / h + "%";
    }
  };

  // ------------------------------------------------------------ the value under the pointer
  const reading = (pane, at) => {
    const value = raw[pane][at.y * exporter.index.view[1] + at.x], [lo, hi] = ends(mapOf(pane));
    const share = hi > lo ? Math.min(1, Math.max(0, (value - lo) / (hi - lo))) : 0;
    $(pane + "-tick").style.left = 100 * share + "%";
    return exporter.number(value) + " raw (" + Math.round(100 * share) + " % of the bar)";
  };
  const point = (at) => {
    probe = at;
    const said = [], [height, width] = exporter.index.view, both = comparing();
    for (const pane of ["v", "w"]) {
      const mark = $(pane + "-probe"), seen = at && (pane === "v" || both) && !(pane === "w" && state.compare === "wipe");
      mark.hidden = !seen;
      $(pane + "-tick").hidden = !at || !raw[pane];
      if (!at) continue;
      mark.style.left = 100 * (at.x + 0.5) / width + "%";
      mark.style.top = 100 * (at.y + 0.5) / height + "%";
      if (raw[pane]) said.push(reading(pane, at) + (both ? pane === "v" ? " left" : " right" : ""));
    }
    $("v-value").textContent = said.length ? "Value " + said.join(", ") + ", at x " + at.x + ", y " + at.y + " pixels of the model's view" : now.current ? "Point at the map to read its values." : "";
  };
  const nudge = ([across, down]) => {
    const [height, width] = exporter.index.view, far = Math.max(1, Math.round(width / 28));
    const from = probe || { x: width >> 1, y: height >> 1 };
    point({ x: Math.min(width - 1, Math.max(0, from.x + far * across)), y: Math.min(height - 1, Math.max(0, from.y + far * down)) });
  };
  const follow = (event) => {
    const frame = event.target.closest(".frame");
    if (!frame || event.target.closest(".divider")) return;
    const box = frame.querySelector("canvas").parentNode.getBoundingClientRect(), [height, width] = exporter.index.view;
    const x = Math.floor((event.clientX - box.left) / box.width * width), y = Math.floor((event.clientY - box.top) / box.height * height);
    point(x >= 0 && x < width && y >= 0 && y < height ? { x, y } : null);
  };

  // A drag of the handle wipes; the slider below does the same from the keyboard.
  const handle = (changed) => {
    const divider = $("v-divider");
    const move = (event) => {
      const box = $("v-frame").getBoundingClientRect();
      state.wipe = String(Math.round(Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width))));
      wipe();
      reflect();
    };
    divider.addEventListener("pointerdown", (event) => { event.preventDefault(); divider.setPointerCapture(event.pointerId); });
    divider.addEventListener("pointermove", (event) => { if (divider.hasPointerCapture(event.pointerId)) move(event); });
    divider.addEventListener("pointerup", changed);
  };

  const begin = (changed) => {
    for (const kind of ["pointermove", "pointerdown"]) $("panes").addEventListener(kind, follow);
    handle(changed);
  };
  exporter.now = now;
  exporter.stage = { begin, show, wipe, reflect, frame, shape, point, nudge, comparing, settings, describe, rangeText };
})();
