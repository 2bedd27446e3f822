// The matrix of every map at every layer of the open image; a click puts one on the stage.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const now = exporter.now;
  const { values: state } = exporter.state;
  const { element, option } = exporter;

  // A long name keeps both ends: what a layer is in, and which it is there, from a dot on if one is near.
  const shorten = (name) => name.length <= 20 ? name : name.slice(0, 8) + "…" + name.slice(-11).replace(/^[^.]{1,8}(?=\.)/, "");
  const targets = () => [...new Set(now.maps.map((map) => map.part))];
  const part = () => Math.min(Number(state.target) || 0, Math.max(0, targets().length - 1));
  const visible = () => now.maps.filter((map) => map.part === part() || targets().length < 2);

  const cell = (map, choose) => {
    const { describe, rangeText } = exporter.stage;
    const button = element("button", "thumb"), canvas = element("canvas"), image = element("img");
    button.type = "button";
    button.dataset.control = "viewer-map";
    image.src = exporter.data.photo(now.position);
    image.alt = "";
    canvas.setAttribute("aria-hidden", "true");
    button.setAttribute("aria-label", describe(map) + ", raw values " + rangeText(map) + (map.flags.length ? ", flagged " + map.flags.join(" ") : ""));
    button.title = "Raw values " + rangeText(map);
    const box = element("span", "photo");
    box.append(image, canvas);
    button.append(box, element("span", "num", exporter.number(map.lo, 2) + " to " + exporter.number(map.hi, 2)));
    if (map.flags.length) button.append(element("span", "flag", map.flags.join(", ")));
    button.addEventListener("click", () => choose(map));
    map.button = button;
    map.canvas = canvas;
    return button;
  };

  const build = (choose) => {
    const table = $("v-table"), shown = visible(), index = exporter.index;
    clear();
    // Maps that are at no layer of the model (at the input, or made from several) have rows of their own,
    // not a column that would be empty for other methods.
    const single = (map) => index.layers[map.layer] !== "" && !index.combined.includes(map.layer);
    const layered = new Set(shown.filter(single).map((map) => map.method));
    const shared = (layer) => [...layered].every((at) => shown.some((map) => map.method === at && map.layer === layer));
    const apart = (layer) => index.layers[layer] === "" || (index.combined.includes(layer) && !(layered.size && shared(layer)));
    const layers = index.layers.map((_, at) => at).filter((at) => !apart(at) && shown.some((map) => map.layer === at));
    table.style.setProperty("--layers", Math.max(1, layers.length));
    table.style.setProperty("--view", index.view[1] / index.view[0]);
    const head = table.createTHead().insertRow();
    head.append(element("td"));
    for (const layer of layers) {
      const title = element("th");
      title.scope = "col";
      // A long name goes on below after a dot, not within a word.
      const name = element("code"), parts = shorten(index.layers[layer]).split(/(?<=[.…])|(?=\[)/);
      parts.forEach((part, at) => name.append(...(at ? [element("wbr"), part] : [part])));
      title.append(name);
      title.title = index.layers[layer];
      head.append(title);
    }
    const body = table.createTBody();
    const line = (at) => {
      const row = body.insertRow(), title = element("th");
      title.scope = "row";
      if (at < 9) title.append(element("kbd", "", String(at + 1)), " ");
      title.append(index.methods[at].title);
      row.append(title);
      return row;
    };
    const own = [];
    index.methods.forEach((method, at) => {
      const maps = shown.filter((map) => map.method === at);
      own.push(...maps.filter((map) => apart(map.layer)));
      if (maps.every((map) => apart(map.layer))) return;
      const row = line(at);
      for (const layer of layers) {
        const map = maps.find((each) => each.layer === layer), room = row.insertCell();
        if (map) room.append(cell(map, choose));
      }
    });
    for (const map of own) {
      const row = line(map.method), room = row.insertCell();
      row.className = "own";
      room.colSpan = Math.max(1, layers.length);
      room.append(cell(map, choose), element("span", "muted", { "": "at the input", attention: "over all blocks", fused: "of several layers" }[index.layers[map.layer]]));
    }
    head.hidden = !layers.length;
    const list = $("v-with");
    list.replaceChildren();
    for (const map of shown) option(list, map.method + " " + map.layer, index.methods[map.method].title + (index.layers[map.layer] === "" ? "" : " at " + exporter.layerWords(index.layers[map.layer])));
    option(list, "-", "the photograph alone");
    paint();
  };
  const paint = () => {
    const height = Math.round(112 * exporter.index.view[0] / exporter.index.view[1]);
    for (const map of visible()) {
      if (!map.canvas) continue;
      exporter.paint.draw(map.canvas, map, height, 112, exporter.stage.settings(map));
      map.canvas.style.opacity = Number(state.opacity) / 100;
    }
    mark();
  };
  const mark = () => {
    for (const map of visible()) {
      if (!map.button) continue;
      map.button.setAttribute("aria-pressed", String(map === now.current));
      map.button.classList.toggle("other", map === now.other && map !== now.current);
    }
  };
  const clear = () => {
    $("v-table").querySelectorAll("canvas").forEach(exporter.paint.release);
    $("v-table").replaceChildren();
  };

  // The map that the address asks for, or the nearest there is.
  const preferred = () => {
    const shown = visible(), layer = Number(state.layer), methods = exporter.index.methods;
    const same = shown.filter((map) => methods[map.method].name === state.map);
    return same.find((map) => map.layer === layer) || same[0] || shown.find((map) => map.layer === layer) || shown[0] || null;
  };
  // The map to compare with: as asked for, else another method at the same layer, else another layer.
  const other = (current) => {
    const shown = visible(), methods = exporter.index.methods;
    if (state.with === "-" || !current) return null;
    const same = shown.filter((map) => methods[map.method].name === state.with);
    const asked = same.find((map) => map.layer === Number(state.at)) || same[0];
    return asked || shown.find((map) => map !== current && map.layer === current.layer) || shown.find((map) => map !== current) || null;
  };
  const fillTargets = () => {
    const list = $("v-target");
    list.replaceChildren();
    for (const at of targets()) option(list, at, exporter.targetName(now.maps.find((map) => map.part === at).target));
    list.value = String(part());
    $("v-target-field").hidden = targets().length < 2;
  };
  exporter.matrix = { build, paint, mark, clear, visible, preferred, other, fillTargets };
})();
