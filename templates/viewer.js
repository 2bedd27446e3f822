// One image: every map at every layer, painted live; its predictions and the channels that fired.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const OPACITIES = ["0", "50", "100"];
  let index, grid, state, position = -1, shard = null, maps = [], current = null, raw = null, probe = null;

  const element = (tag, className, content) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content !== undefined) made.textContent = content;
    return made;
  };
  const settings = (map) => ({ rectify: index.methods[map.method].relu, colour: state.colour, threshold: Number(state.threshold) / 100 });
  const layerName = (map) => index.layers[map.layer] || "input";
  const ends = (map) => {
    const centred = state.colour === "diverging";
    return exporter.paint.range(map.values(), settings(map).rectify && !centred, centred);
  };
  const rangeText = (map) => exporter.number(map.lo) + " to " + exporter.number(map.hi);
  const describe = (map) => index.methods[map.method].title + " at " + layerName(map) + " for " + exporter.targetName(map.target);

  // ------------------------------------------------------------ one map on the stage
  const stage = () => {
    const [height, width] = index.view;
    const original = state.geometry === "original" && shape();
    $("v-frame").classList.toggle("original", Boolean(original));
    if (!current) { exporter.paint.release($("v-heat")); return; }
    exporter.paint.draw($("v-heat"), current, height, width, settings(current));
    $("v-heat").style.opacity = Number(state.opacity) / 100;
    raw = exporter.paint.resize(current.values(), current.height, current.width, height, width);
    const [lo, hi] = ends(current);
    exporter.paint.ramp($("v-ramp"), state.colour);
    $("v-lo").textContent = exporter.number(lo);
    $("v-hi").textContent = exporter.number(hi);
    const method = index.methods[current.method];
    const capped = current.height !== current.fullHeight || current.width !== current.fullWidth;
    $("v-caption").textContent = describe(current) + ". Raw values " + rangeText(current) + ", " +
      current.fullHeight + " × " + current.fullWidth + " cells" + (capped ? " (drawn from " + current.height + " × " + current.width + ")" : "") +
      (method.relu && current.lo < 0 && state.colour !== "diverging" ? "; negative values are drawn as 0" : "") +
      (current.flags.length ? ". Flagged: " + current.flags.join(", ") : "") + ".";
    $("v-img").alt = "Photograph " + index.paths[position] + ", " + grid.className(position) + " " + exporter.score(index.score[position]) + ", with " + describe(current) + " over it";
    $("v-opacity").value = state.opacity;
    $("v-opacity-out").textContent = state.opacity + " %";
    $("v-threshold").value = state.threshold;
    $("v-threshold-out").textContent = state.threshold + " % of the range";
    $("v-colour").value = state.colour;
    $("v-geometry").value = state.geometry || "";
    point(probe);
  };

  // The original's frame around the model's view, both in the original's pixels.
  const shape = () => {
    const row = exporter.data.rowOf(position);
    const size = shard && shard.size[row], crop = shard && shard.crop[row];
    return size && crop ? { size, crop } : null;
  };
  const frame = () => {
    const place = $("v-placeholder").style, box = $("v-frame").style;
    const original = state.geometry === "original" && shape();
    for (const name of ["left", "top", "width", "height"]) place[name] = "";
    const [height, width] = index.view;
    box.aspectRatio = original ? original.size[0] + " / " + original.size[1] : width + " / " + height;
    box.setProperty("--ratio", original ? original.size[0] / original.size[1] : width / height);
    if (original) {
      const { size: [w, h], crop: [left, top, right, bottom] } = original;
      place.left = 100 * left / w + "%";
      place.top = 100 * top / h + "%";
      place.width = 100 * (right - left) / w + "%";
      place.height = 100 * (bottom - top) / h + "%";
    }
  };

  const point = (at) => {
    probe = at;
    const mark = $("v-probe"), tick = $("v-tick"), [height, width] = index.view;
    mark.hidden = tick.hidden = !at || !raw;
    if (!at || !raw) { $("v-value").textContent = "Point at the map to read its values."; return; }
    const value = raw[at.y * width + at.x], [lo, hi] = ends(current);
    $("v-value").textContent = "Value " + exporter.number(value) + " at x " + at.x + ", y " + at.y + " pixels of the model's view";
    mark.style.left = 100 * (at.x + 0.5) / width + "%";
    mark.style.top = 100 * (at.y + 0.5) / height + "%";
    tick.style.left = (hi > lo ? Math.min(100, Math.max(0, 100 * (value - lo) / (hi - lo))) : 0) + "%";
  };

  // ------------------------------------------------------------ matrix
  const targets = () => [...new Set(maps.map((map) => map.part))];
  const part = () => Math.min(Number(state.target) || 0, Math.max(0, targets().length - 1));
  const visible = () => maps.filter((map) => map.part === part() || targets().length < 2);

  const matrix = () => {
    const table = $("v-table"), shown = visible();
    table.querySelectorAll("canvas").forEach(exporter.paint.release);
    table.replaceChildren();
    const layers = index.layers.map((_, at) => at).filter((at) => shown.some((map) => map.layer === at));
    table.style.setProperty("--layers", layers.length);
    table.style.setProperty("--view", index.view[1] / index.view[0]);
    const head = table.createTHead().insertRow();
    head.append(element("td"));
    for (const layer of layers) {
      const cell = element("th");
      cell.scope = "col";
      cell.append(element("code", "", index.layers[layer] || "input"));
      head.append(cell);
    }
    const body = table.createTBody();
    index.methods.forEach((method, at) => {
      if (!shown.some((map) => map.method === at)) return;
      const row = body.insertRow(), title = element("th");
      title.scope = "row";
      if (at < 9) title.append(element("kbd", "", String(at + 1)), " ");
      title.append(method.title);
      row.append(title);
      for (const layer of layers) {
        const cell = row.insertCell(), map = shown.find((one) => one.method === at && one.layer === layer);
        if (!map) continue;
        const button = element("button", "thumb"), canvas = element("canvas"), image = element("img");
        button.type = "button";
        button.dataset.control = "viewer-map";
        image.src = exporter.data.photo(position);
        image.alt = "";
        canvas.setAttribute("aria-hidden", "true");
        button.setAttribute("aria-label", describe(map) + ", raw values " + rangeText(map) + (map.flags.length ? ", flagged " + map.flags.join(" ") : ""));
        const box = element("span", "photo");
        box.append(image, canvas);
        button.append(box, element("span", "num", exporter.number(map.lo, 2) + " to " + exporter.number(map.hi, 2)));
        if (map.flags.length) button.append(element("span", "flag", map.flags.join(", ")));
        button.addEventListener("click", () => choose(map));
        map.button = button;
        map.canvas = canvas;
        cell.append(button);
      }
    });
    thumbs();
  };
  const thumbs = () => {
    const height = Math.round(112 * index.view[0] / index.view[1]);
    for (const map of visible()) {
      if (!map.canvas) continue;
      exporter.paint.draw(map.canvas, map, height, 112, settings(map));
      map.canvas.style.opacity = Number(state.opacity) / 100;
      map.button.setAttribute("aria-pressed", String(map === current));
    }
  };
  const choose = (map) => {
    current = map || null;
    if (map) {
      state.map = index.methods[map.method].name;
      if (index.layers[map.layer] !== "") state.layer = String(map.layer);
      grid.reflect();
    }
    stage();
    for (const one of visible()) if (one.button) one.button.setAttribute("aria-pressed", String(one === current));
    grid.write();
  };
  const preferred = () => {
    const shown = visible(), layer = Number(state.layer);
    const same = shown.filter((map) => index.methods[map.method].name === state.map);
    return same.find((map) => map.layer === layer) || same[0] || shown.find((map) => map.layer === layer) || shown[0];
  };

  // ------------------------------------------------------------ what is beside the maps
  const predictions = () => {
    const list = $("v-predictions"), row = exporter.data.rowOf(position), given = shard.p[row];
    list.replaceChildren();
    list.closest("section").hidden = !given.length;
    for (let i = 0; i < given.length; i += 2) {
      const item = element("li"), score = given[i + 1];
      item.append(element("span", "name", index.names[given[i]] || "class " + given[i]), element("span", "num", exporter.score(score)));
      if (index.probability) {
        const meter = element("span", "meter"), fill = element("span");
        fill.style.width = 100 * score + "%";
        meter.append(fill);
        item.append(meter);
      }
      list.append(item);
    }
  };
  const facts = () => {
    const list = $("v-facts"), row = exporter.data.rowOf(position);
    list.replaceChildren();
    const add = (name, value, className) => {
      if (value !== "" && value !== null && value !== undefined) list.append(element("dt", "", name), element("dd", className || "", value));
    };
    const mark = index.correct[position];
    add("Label", grid.labelName(position));
    add("Verdict", mark === "1" ? "✓ right" : mark === "0" ? "✗ wrong" : "", mark === "1" ? "right" : "wrong");
    if (index.loss && index.loss[position] !== null) add("Loss", exporter.number(index.loss[position]) + " nats (cross-entropy)");
    const original = shape();
    if (original) {
      add("Original", original.size.join(" × ") + " pixels");
      const [left, top, right, bottom] = original.crop.map((value) => Math.round(10 * value) / 10);
      add("Model's view", index.view[1] + " × " + index.view[0] + " pixels, from x " + left + "–" + right + ", y " + top + "–" + bottom + " of the original");
    }
    add("File", index.paths[position], "path");
    add("Id", index.ids[position], "path");
    const links = $("v-links");
    links.replaceChildren();
    const photo = element("a", "", "The photograph's file");
    photo.href = exporter.data.photo(position);
    links.append(photo);
    if (index.tensorboard && index.flags[position] & 32) {
      const link = element("a", "", "In TensorBoard");
      link.href = index.tensorboard.replace(/\/+$/, "") + "/#images&tagFilter=" + encodeURIComponent("@" + index.ids[position] + "$");
      link.rel = "noreferrer";
      links.append(" · ", link);
    }
  };
  const activations = () => {
    const room = $("v-acts"), found = exporter.data.activationsOf(shard, exporter.data.rowOf(position));
    room.replaceChildren();
    $("v-acts-section").hidden = !found.length;
    for (const layer of found) {
      const box = element("div", "act"), strip = element("ul", "acts");
      const head = element("h4");
      head.append(element("code", "", layer.layer));
      const small = layer.height !== layer.fullHeight || layer.width !== layer.fullWidth;
      head.append(element("span", "muted", " " + layer.fullHeight + " × " + layer.fullWidth + " cells" + (small ? ", drawn from " + layer.height + " × " + layer.width : "") ));
      for (const one of layer.channels.filter((channel) => channel.levels)) {
        const item = element("li"), figure = element("figure");
        const canvas = element("canvas");
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", "Channel " + one.channel + " of " + layer.layer + ", " + exporter.number(one.lo) + " to " + exporter.number(one.hi));
        exporter.paint.channel(canvas, one.levels, layer.height, layer.width, state.colour === "diverging" ? "viridis" : state.colour);
        figure.append(canvas);
        const words = element("figcaption");
        words.append(element("b", "", "channel " + one.channel), element("span", "num", exporter.number(one.lo) + " to " + exporter.number(one.hi)));
        figure.append(words);
        item.append(figure);
        strip.append(item);
      }
      box.append(head, strip);
      const rest = layer.channels.filter((channel) => !channel.levels);
      if (rest.length) {
        const told = rest.map((one) => one.channel + " (" + exporter.number(one.lo, 2) + " to " + exporter.number(one.hi, 2) + ")");
        box.append(element("p", "rest muted", "Then channels " + told.join(", ") + "."));
      }
      room.append(box);
    }
  };

  // ------------------------------------------------------------ opening, moving, keys
  const open = (at) => {
    position = at;
    state.image = index.ids[at];
    probe = raw = current = null;
    maps = [];
    const dialog = $("viewer");
    if (!dialog.open) dialog.showModal();
    $("v-title").textContent = exporter.data.unread(at) ? "Not read" : [grid.className(at), exporter.score(index.score[at])].filter(Boolean).join(", ");
    $("v-path").textContent = index.paths[at];
    placed();
    dialog.classList.toggle("unread", exporter.data.unread(at));
    if (!exporter.data.unread(at)) $("v-img").src = exporter.data.photo(at);
    exporter.paint.release($("v-heat"));
    grid.write();
    exporter.data.load(exporter.data.shardOf(at)).then((loaded) => {
      if (position !== at) return;
      shard = loaded;
      const row = exporter.data.rowOf(at);
      maps = exporter.data.mapsOf(shard, row);
      fillTargets();
      if (exporter.data.unread(at)) {
        $("v-caption").textContent = "This image could not be read: " + shard.error[row] + ".";
        $("v-facts").replaceChildren();
        $("v-links").replaceChildren();
        return;
      }
      $("v-geometry-field").hidden = !shape();
      frame();
      matrix();
      predictions();
      facts();
      activations();
      choose(preferred());
    }).catch((error) => { $("v-caption").textContent = "The maps cannot be shown: " + error.message + "."; });
  };
  const fillTargets = () => {
    const list = $("v-target");
    list.replaceChildren();
    for (const at of targets()) {
      const one = element("option", "", exporter.targetName(maps.find((map) => map.part === at).target));
      one.value = at;
      list.append(one);
    }
    list.value = String(part());
    $("v-target-field").hidden = targets().length < 2;
  };
  const placed = () => {
    if (position < 0) return;
    const order = grid.order(), at = order.indexOf(position);
    $("v-place").textContent = at < 0 ? "outside the filter" : (at + 1).toLocaleString("en") + " of " + order.length.toLocaleString("en");
    $("v-prev").disabled = at === 0;
    $("v-next").disabled = at >= 0 && at === order.length - 1;
  };
  const step = (by) => {
    const order = grid.order(), at = order.indexOf(position);
    const to = at < 0 ? 0 : at + by;
    if (to >= 0 && to < order.length) open(order[to]);
  };
  const repaint = () => { if (current) { stage(); thumbs(); activations(); } grid.repaint(); grid.reflect(); grid.write(); };
  const soon = (() => {
    let frame = 0;
    return () => { frame ||= requestAnimationFrame(() => { frame = 0; if (current) { stage(); thumbs(); } grid.write(); }); };
  })();
  const cycle = (list, value, by = 1) => list[(list.indexOf(value) + by + list.length) % list.length];
  const full = (on) => {
    $("viewer").classList.toggle("full", on);
    $("v-full").setAttribute("aria-pressed", String(on));
  };
  const geometry = (value) => { state.geometry = value; frame(); stage(); grid.write(); };

  const shortcut = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = event.target.matches("input, select");
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrow && event.shiftKey && event.target === $("v-frame") && raw) {
      const [height, width] = index.view, far = Math.max(1, Math.round(width / 28));
      const from = probe || { x: width >> 1, y: height >> 1 };
      point({ x: Math.min(width - 1, Math.max(0, from.x + far * arrow[0])), y: Math.min(height - 1, Math.max(0, from.y + far * arrow[1])) });
    } else if (inField) return;
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (/^[1-9]$/.test(event.key)) {
      const method = index.methods[Number(event.key) - 1];
      if (!method) return;
      state.map = method.name;
      choose(preferred());
    } else if ((event.key === "[" || event.key === "]") && current) {
      const row = visible().filter((map) => map.method === current.method);
      choose(cycle(row, current, event.key === "]" ? 1 : -1));
    } else if (event.key === "o") {
      state.opacity = cycle(OPACITIES, OPACITIES.findLast((one) => Number(one) <= Number(state.opacity)));
      repaint();
    } else if (event.key === "c") {
      state.colour = cycle(Object.keys(exporter.colours), state.colour);
      repaint();
    } else if (event.key === "g" && shape()) geometry(state.geometry === "original" ? "" : "original");
    else if (event.key === "f") full(!$("viewer").classList.contains("full"));
    else return;
    event.preventDefault();
  };

  const begin = () => {
    index = exporter.index;
    grid = exporter.grid;
    state = grid.state;
    for (const name of Object.keys(exporter.colours)) {
      const one = element("option", "", name + (name === "diverging" ? " (signed)" : ""));
      one.value = name;
      $("v-colour").append(one);
    }
    $("v-prev").addEventListener("click", () => step(-1));
    $("v-next").addEventListener("click", () => step(1));
    $("v-close").addEventListener("click", () => $("viewer").close());
    $("v-full").addEventListener("click", () => full(!$("viewer").classList.contains("full")));
    $("v-opacity").addEventListener("input", (event) => { state.opacity = event.target.value; soon(); });
    $("v-threshold").addEventListener("input", (event) => { state.threshold = event.target.value; soon(); });
    for (const slider of ["v-opacity", "v-threshold"]) $(slider).addEventListener("change", repaint);
    $("v-colour").addEventListener("change", (event) => { state.colour = event.target.value; repaint(); });
    $("v-geometry").addEventListener("change", (event) => geometry(event.target.value));
    $("v-target").addEventListener("change", (event) => { state.target = event.target.value; matrix(); choose(preferred()); });
    $("viewer").addEventListener("keydown", shortcut);
    $("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
    $("viewer").addEventListener("close", () => {
      const last = position;
      position = -1;
      current = null;
      full(false);
      delete state.image;
      $("v-table").querySelectorAll("canvas").forEach(exporter.paint.release);
      grid.write();
      grid.focus(last);
    });
    const follow = (event) => {
      const box = $("v-heat").getBoundingClientRect(), [height, width] = index.view;
      const x = Math.floor((event.clientX - box.left) / box.width * width), y = Math.floor((event.clientY - box.top) / box.height * height);
      point(x >= 0 && x < width && y >= 0 && y < height ? { x, y } : null);
    };
    $("v-frame").addEventListener("pointermove", follow);
    $("v-frame").addEventListener("pointerdown", follow);
  };
  const restore = () => {
    const at = state.image ? index.ids.indexOf(state.image) : -1;
    if (at >= 0 && at !== position) open(at);
    else if (at < 0 && $("viewer").open) $("viewer").close();
  };
  exporter.viewer = { begin, open, restore, placed };
})();
