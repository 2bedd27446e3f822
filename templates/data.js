// The index of all images, and the shards of maps, which arrive as classic scripts: the one way that
// works from file:// in every browser. They may arrive out of order, so each says its number.
"use strict";
window.exporter = window.exporter || {};
(() => {
  const KEEP = 12, AT_ONCE = 2, ZERO = 63;
  const { bytes, floats } = exporter.paint;
  const shards = new Map();
  const wanted = [];
  const waiting = new Map();
  let loading = 0;

  // The columns of the first images come with the index, those of a large set in a script of their own: it is
  // loaded once the page is there, or before where the address asks for more than its beginning.
  const fillColumns = (columns) => {
    const { index } = exporter;
    Object.assign(index, columns, { ids: columns.ids ? columns.ids.split(" ") : [] });
    for (const measure of index.measures) measure.values = columns.measured[measure.at] || index.ids.map(() => null);
  };
  const whole = () => exporter.index.ids.length === exporter.index.images;
  window.exporterIndex = (text) => {
    const index = exporter.index = JSON.parse(text);
    fillColumns(index.columns);
    exporter.colours = {};
    for (const [name, table] of Object.entries(index.colormaps)) exporter.colours[name] = bytes(table);
    const begin = () => document.dispatchEvent(new Event("exporter-index"));
    if (whole() || !location.hash.includes("=")) begin(); else columns().then(begin, begin);
  };
  window.exporterColumns = (text) => fillColumns(JSON.parse(text));
  const script = (address) => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = address;
    element.addEventListener("load", () => { element.remove(); resolve(); });
    element.addEventListener("error", () => { element.remove(); reject(new Error("the file " + element.src + " is missing")); });
    document.head.append(element);
  });
  const columns = () => whole() ? Promise.resolve() : script("data/columns.js");

  window.exporterShard = (number, shard) => {
    shards.set(number, shard);
    while (shards.size > KEEP) shards.delete(shards.keys().next().value);
  };

  const settle = (number, error) => {
    for (const [resolve, reject] of waiting.get(number) || []) {
      if (error) reject(error); else resolve(shards.get(number));
    }
    waiting.delete(number);
  };
  const next = () => {
    while (loading < AT_ONCE && wanted.length) {
      const number = wanted.pop();
      const done = (error) => {
        loading--;
        settle(number, error);
        next();
      };
      loading++;
      script("data/" + String(number).padStart(5, "0") + ".js").then(() => done(shards.has(number) ? null : new Error("empty")), done);
    }
  };

  // The page asks for the first shard itself, so that it comes beside the index.
  const first = document.querySelector("script[data-shard]");
  if (first) {
    waiting.set(0, []);
    first.addEventListener("load", () => settle(0, shards.has(0) ? null : new Error("empty")));
    first.addEventListener("error", () => settle(0, new Error("the file " + first.src + " is missing")));
  }

  // The last one asked for is loaded first: it is what the reader looks at.
  const load = (number) => {
    if (shards.has(number)) {
      const shard = shards.get(number);
      shards.delete(number);
      shards.set(number, shard);
      return Promise.resolve(shard);
    }
    return new Promise((resolve, reject) => {
      if (waiting.has(number)) {
        waiting.get(number).push([resolve, reject]);
        const at = wanted.indexOf(number);
        if (at >= 0) wanted.push(...wanted.splice(at, 1));
      } else {
        waiting.set(number, [[resolve, reject]]);
        wanted.push(number);
      }
      next();
    });
  };

  // Levels to raw values; a signed map of a method with a ReLU has 0 at level 63, so that what is drawn
  // keeps three quarters of the levels.
  const decode = (levels, lo, hi, split) => {
    const out = new Float32Array(levels.length);
    for (let i = 0; i < levels.length; i++) {
      const level = levels[i];
      if (!split) out[i] = lo + (hi - lo) * level / 255;
      else if (level >= ZERO) out[i] = hi * (level - ZERO) / (255 - ZERO);
      else out[i] = lo * (ZERO - level) / ZERO;
    }
    return out;
  };

  const flagNames = (bits) => ["zero", "constant", "nan", "negative", "noise"].filter((_, bit) => bits & (1 << bit));

  // Decoded when a map of the group is first drawn: the grid draws one group of a shard's twenty.
  const levelsOf = (group) => {
    if (!group.levels) group.levels = bytes(group.v);
    group.v = "";
    return group.levels;
  };
  const mapsOf = (shard, row) => {
    const maps = [];
    for (const group of shard.maps) {
      const at = group.rows ? group.rows.indexOf(row) : row;
      if (at < 0) continue;
      group.ends = group.ends || floats(group.r);
      group.r = "";
      const cells = group.h * group.w, lo = group.ends[2 * at], hi = group.ends[2 * at + 1];
      const split = exporter.index.methods[group.m].relu && lo < 0 && hi > 0;
      const map = {
        method: group.m, layer: group.l, part: group.k, target: shard.targets[group.t[at]],
        height: group.h, width: group.w, fullHeight: group.H, fullWidth: group.W, lo, hi,
        flags: flagNames(group.f ? group.f[at] : 0),
        values: () => decode(levelsOf(group).subarray(at * cells, (at + 1) * cells), lo, hi, split),
      };
      maps.push(map);
    }
    return maps;
  };

  const activationsOf = (shard, row) => {
    const sheets = [];
    for (const group of shard.acts) {
      const at = group.rows ? group.rows.indexOf(row) : row;
      if (at < 0) continue;
      group.levels = group.levels || bytes(group.v);
      group.ends = group.ends || floats(group.r);
      group.v = group.r = "";
      const cells = group.h * group.w, many = group.c[at].length;
      sheets.push({
        layer: group.layer, height: group.h, width: group.w, fullHeight: group.H, fullWidth: group.W,
        channels: group.c[at].map((channel, k) => {
          const from = (at * group.d + k) * cells, end = 2 * (at * many + k);
          return {
            channel, lo: group.ends[end], hi: group.ends[end + 1],
            levels: k < group.d ? group.levels.subarray(from, from + cells) : null,
          };
        }),
      });
    }
    return sheets;
  };

  exporter.data = {
    // What made a map: one of the run's methods, or the map itself says.
    methodOf: (map) => map.by || exporter.index.methods[map.method],
    loaded: (number) => shards.has(number),
    load, columns, whole, script, mapsOf, activationsOf,
    shardOf: (position) => Math.floor(position / exporter.index.perShard),
    rowOf: (position) => position % exporter.index.perShard,
    photo: (position) => "photos/" + String(Math.floor(position / 1000)).padStart(2, "0") + "/" + exporter.index.ids[position] + ".jpg",
    unread: (position) => (exporter.index.flags[position] & 32) !== 0,
  };

  exporter.element = (tag, className, content) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (content !== undefined) node.textContent = content;
    return node;
  };

  // An entry at the end of a list: what it stands for, and what it says.
  exporter.option = (list, value, content) => {
    const entry = exporter.element("option", "", content);
    entry.value = value;
    list.append(entry);
  };
  // Whether a prediction is right, as the index marks it; null where that is not known.
  exporter.verdict = (mark) => mark === "-" ? null : exporter.element("span", mark === "1" ? "right" : "wrong", mark === "1" ? " ✓ right" : " ✗ wrong");

  // A layer that is called by its number would be read as a number.
  exporter.layerWords = (layer) => (/^\d/.test(layer) ? "layer " : "") + (layer || "input");
  exporter.images = (count) => count.toLocaleString("en") + (count === 1 ? " image" : " images");
  // To four significant digits; a true minus sign.
  exporter.number = (value, digits = 4) => {
    if (!Number.isFinite(value)) return "not a number";
    const size = Math.abs(value);
    const text = value === 0 ? "0" : size >= 1e5 || size < 1e-3 ? value.toExponential(Math.min(2, digits - 1)) : String(+value.toPrecision(digits));
    return text.replace(/-/g, "−");
  };
  exporter.score = (value) => {
    if (value === null || value === undefined) return "";
    return exporter.index.probability ? (100 * value).toFixed(1) + "\u00a0%" : exporter.number(value);
  };
  exporter.targetName = (target) => {
    const match = /^class:(\d+)(?:-(\d+))?$/.exec(target);
    if (!match) return target === "value" ? "the output’s value" : target.replace(":", " ");
    const [first, second] = match.slice(1).map((number) => exporter.index.names[number] || "class " + number);
    return match[2] ? first + " rather than " + second : first;
  };
})();
