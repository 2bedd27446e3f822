// The images page of a comparison: rows are images, columns are runs, one method and stage at a time;
// and the viewer, which shows one image in all runs in step. The address holds the state of both.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { data, paint, element, option, number, score } = exporter;
  // Tiles on a page of images at most, and pixels across a tile's map.
  const TILES = 120, PAINTED = 96;
  const DEFAULTS = { q: "", label: "", flip: "", run: "", sort: "set", order: "", method: "0", stage: "", colour: "viridis", opacity: "80", size: "", only: "0", page: "0", image: "", mode: "side", left: "", right: "", wipe: "50" };
  const state = {};
  const decimal = (value) => value.toFixed(2).replace("-", "−");
  let index, order = [], runs = 0, side = 160, shard = null, current = -1;

  // ------------------------------------------------------------ state and address
  const within = (text, count) => /^\d+$/.test(text) && Number(text) < count;
  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of Object.entries(DEFAULTS)) state[name] = given.get(name) ?? value;
    const method = index.compared[within(state.method, index.compared.length) ? Number(state.method) : 0];
    state.method = String(Math.max(0, index.compared.indexOf(method)));
    if (method && !method.stages.includes(Number(state.stage || "x"))) state.stage = "";
    if (!Object.hasOwn(exporter.colours, state.colour)) state.colour = "viridis";
    const last = index.baseline === runs - 1 ? 0 : runs - 1;
    if (!within(state.left, runs)) state.left = String(index.baseline);
    if (!within(state.right, runs)) state.right = String(last);
    if (!within(state.run, runs)) state.run = "";
    for (const [name, most] of [["opacity", 101], ["wipe", 101], ["only", $("only") ? runs + 1 : 1], ["page", Infinity]]) if (!within(state[name], most)) state[name] = DEFAULTS[name];
    // As large as lets all runs stand beside one another.
    const room = Math.floor((innerWidth < 700 ? innerWidth - 130 : innerWidth - 340) / runs / 20) * 20;
    side = Math.min(innerWidth < 2400 ? 180 : 400, Math.max(80, room));
    if (!within(state.size, 401)) state.size = "";
    for (const [name, id] of [["flip", "flip"], ["sort", "sort"], ["order", "order"], ["mode", "v-mode"]]) if (![...$(id).options].some((option) => option.value === state[name])) state[name] = DEFAULTS[name];
  };
  const write = () => {
    const out = new URLSearchParams();
    for (const [name, value] of Object.entries(DEFAULTS)) if (state[name] !== value && !(name === "left" && state.mode === "side") && !(name === "right" && state.mode === "side")) out.set(name, state[name]);
    if (current < 0) for (const name of ["image", "mode", "left", "right", "wipe"]) out.delete(name);
    history.replaceState(null, "", out.size ? "#" + out : location.pathname);
  };
  const method = () => index.compared[Number(state.method)];
  const stage = () => state.stage === "" ? method()?.stages.at(-1) : Number(state.stage);
  const settings = (map) => ({ rectify: index.methods[map.method].relu, colour: state.colour, threshold: 0, fade: true });
  const name = (run, at) => index.predicted[run][at] < 0 ? "" : index.classes[index.predicted[run][at]];
  const labelOf = (at) => index.label[at] < 0 ? "" : index.labels[index.label[at]];

  // ------------------------------------------------------------ which images, in which order
  const flipOf = (run, at) => {
    const before = index.correct[index.baseline][at], now = index.correct[run][at];
    if (before === "1" && now === "0") return "lost";
    if (before === "0" && now === "1") return "won";
    const a = index.predicted[index.baseline][at], b = index.predicted[run][at];
    return a >= 0 && b >= 0 && a !== b ? "changed" : "";
  };
  const keyOf = () => {
    let key = 0;
    for (const [at, compared] of index.compared.entries()) {
      if (at === Number(state.method)) return key + compared.stages.indexOf(stage());
      key += compared.stages.length;
    }
    return 0;
  };
  // Numbers of an image to sort by, the largest first; those of a run are the chosen run's, or the baseline's.
  const chosen = () => state.run === "" ? index.baseline : Number(state.run);
  const spread = (at) => Math.max(...index.score.map((scores) => Math.abs((scores[at] ?? 0) - (index.score[index.baseline][at] ?? 0))));
  // How far maps have moved at the method and stage in sight: by rank correlation, SSIM and IoU, one after the other.
  const movedBy = (number) => (at) => index.moves[(number * index.moves.length / 3) + keyOf() * index.ids.length + at] || null;
  const sorts = {
    disagreement: (at) => new Set(index.predicted.map((predicted) => predicted[at]).filter((predicted) => predicted >= 0)).size + spread(at) / 2,
    flips: (at) => index.runs.filter((_, run) => run !== index.baseline && flipOf(run, at)).length,
    score: (at) => index.score[chosen()][at],
    mean: (at) => index.likeness[at] === null ? null : -index.likeness[at],
    moved: movedBy(0), ssim: movedBy(1), iou: movedBy(2), spread,
  };
  const sortOf = (name) => sorts[name] || (name.startsWith("n") ? (at) => index.numbers[Number(name.slice(1))][chosen()][at] : null);
  const sorted = (list) => {
    const by = state.sort === "path" ? null : sortOf(state.sort), sign = state.order ? -1 : 1;
    if (state.sort === "path") list.sort((a, b) => sign * index.paths[a].localeCompare(index.paths[b]));
    else if (by) {
      // Images without the number come last either way.
      const values = new Map(list.map((at) => [at, by(at) ?? NaN]));
      const last = (at) => Number.isNaN(values.get(at));
      list.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : sign * (values.get(b) - values.get(a))));
    } else if (state.order) list.reverse();
    return list;
  };
  const select = () => {
    if (!index.moves) index.moves = paint.bytes(index.moved);
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const among = state.run === "" ? [...Array(runs).keys()].filter((run) => run !== index.baseline) : [Number(state.run)];
    order = [...index.ids.keys()].filter((at) => {
      if (state.label !== "" && labelOf(at) !== state.label) return false;
      if (state.flip && !among.some((run) => { const flip = flipOf(run, at); return state.flip === "any" ? flip : flip === state.flip; })) return false;
      if (!words.length) return true;
      const text = [index.paths[at], labelOf(at), ...index.predicted.map((_, run) => name(run, at))].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    sorted(order);
  };

  // ------------------------------------------------------------ the sheet
  const mapsAt = (loaded, at) => {
    const kept = new Map();
    if (!method()) return kept;
    for (const map of data.mapsOf(loaded, data.rowOf(at))) {
      const run = Math.floor(map.method / index.compared.length);
      if (map.method % index.compared.length === Number(state.method) && map.layer === stage() && map.part === 0) kept.set(run, map);
    }
    return kept;
  };
  // A photograph without colours over it says why.
  const flag = (tile, map) => {
    const facts = tile.querySelector(".num"), said = map ? (map.flags.length ? " flagged" : "") : method() ? " no map" : "";
    facts.querySelector(".flag")?.remove();
    if (!said) return;
    const mark = element("span", "flag", said);
    mark.title = map ? map.flags.join(", ") : "";
    facts.append(mark);
  };
  const paintRow = (row, at) => data.load(data.shardOf(at)).then((loaded) => {
    const maps = mapsAt(loaded, at), height = Math.round(PAINTED * index.view[0] / index.view[1]);
    for (const canvas of row.querySelectorAll("canvas")) {
      const map = maps.get(Number(canvas.dataset.run));
      if (map) paint.draw(canvas, map, height, PAINTED, settings(map)); else paint.release(canvas);
      canvas.style.opacity = Number(state.opacity) / 100;
      flag(canvas.closest(".tile"), map);
    }
  }).catch((error) => { row.title = error.message; });
  // One row after the other, also those out of sight: the page may be printed. A later round ends an earlier one.
  let round = 0, painted = Promise.resolve();
  const paintAll = async () => {
    const own = ++round;
    for (const row of [...$("sheet").tBodies[0].rows]) {
      await paintRow(row, Number(row.dataset.at));
      if (own !== round) return;
    }
  };
  const paintRows = () => { painted = paintAll(); };
  const FLIPS = { lost: "right to wrong", won: "wrong to right", changed: "another class" };
  const verdict = (run, at) => exporter.verdict(index.correct[run][at]);
  const photograph = (run, at, words) => {
    const photo = element("span", "photo"), image = element("img");
    Object.assign(image, { src: data.photo(at), alt: words, decoding: "async", loading: "lazy", draggable: false });
    const canvas = element("canvas");
    canvas.setAttribute("aria-hidden", "true");
    canvas.dataset.run = run;
    photo.append(image, canvas);
    return photo;
  };
  const tile = (run, at) => {
    const cell = element("td"), button = element("button", "tile"), said = name(run, at);
    button.type = "button";
    button.dataset.control = "tile";
    button.append(photograph(run, at, index.paths[at] + " in " + index.runs[run].name + (said ? ": " + said + " " + score(index.score[run][at]) : "")));
    button.addEventListener("click", () => { state.right = String(run); open(at); });
    const words = element("span", "words");
    words.append(element("span", "name", said || "—"));
    const facts = element("span", "num", score(index.score[run][at])), mark = verdict(run, at), flip = flipOf(run, at);
    if (mark) facts.append(mark);
    words.append(facts);
    if (run !== index.baseline && flip && flip !== "changed") words.append(element("span", "flip", FLIPS[flip]));
    button.append(words);
    cell.append(button);
    return cell;
  };
  const rowOf = (at) => {
    const row = element("tr"), head = element("th", "", index.paths[at]);
    head.scope = "row";
    row.dataset.at = at;
    for (const [words, text] of [["labelled ", labelOf(at)], ["mean rank correlation ", index.likeness[at] === null ? "" : decimal(index.likeness[at])]]) {
      if (text) head.append(element("br"), element("span", "muted", words), text);
    }
    row.append(head, ...index.runs.map((_, run) => tile(run, at)));
    return row;
  };
  // All runs beside one another, or one of them, where a slider turns the leaves: all tiles are there.
  const reveal = () => {
    const only = Number(state.only), sheet = $("sheet");
    sheet.style.setProperty("--tile", (state.size || (only ? Math.max(side, 140) : side)) + "px");
    sheet.classList.toggle("one-run", only > 0);
    for (const row of sheet.rows) for (const [at, cell] of [...row.cells].entries()) cell.hidden = only > 0 && at > 0 && at !== only;
  };
  const perPage = () => Math.max(8, Math.floor(TILES / runs));
  const show = () => {
    const pages = Math.max(1, Math.ceil(order.length / perPage()));
    state.page = String(Math.min(Number(state.page), pages - 1));
    const from = Number(state.page) * perPage(), part = order.slice(from, from + perPage());
    document.documentElement.style.setProperty("--view", index.view[1] / index.view[0]);
    $("sheet").tBodies[0].replaceChildren(...part.map(rowOf));
    reveal();
    paintRows();
    $("none").hidden = order.length > 0;
    $("count").textContent = exporter.images(order.length) + (order.length < index.images ? " of " + index.images.toLocaleString("en") : "");
    $("caption").textContent = method() ? "Over each photograph the map of " + method().title + " at " + index.places[stage()] + ", each coloured from its smallest to its largest value." : "The runs have no maps in common.";
    $("pager").hidden = pages < 2;
    $("span").textContent = (from + 1).toLocaleString("en") + "–" + (from + part.length).toLocaleString("en");
    $("before").disabled = from === 0;
    $("after").disabled = Number(state.page) === pages - 1;
  };

  // ------------------------------------------------------------ the viewer
  const scaled = (map) => {
    const relu = index.methods[map.method].relu;
    return paint.normalise(map.values(), relu, false, map.flags.length > 0 && !map.flags.includes("negative"));
  };
  const difference = (a, b) => {
    const height = Math.max(a.height, b.height), width = Math.max(a.width, b.width);
    const [x, y] = [a, b].map((map) => paint.resize(scaled(map), map.height, map.width, height, width));
    return { height, width, flags: [], scaled: true, values: () => x.map((value, i) => 0.5 + (y[i] - value) / 2) };
  };
  const words = (run, map) => {
    const said = name(run, current), about = map ? ". " + method().title + " for " + map.target + ", " + number(map.lo) + " to " + number(map.hi) + (map.flags.length ? ", flagged: " + map.flags.join(", ") : "") : ". No map here";
    return (said ? said + " " + score(index.score[run][current]) : "no prediction") + about + ".";
  };
  const pane = (list, maps, title) => {
    const figure = element("figure"), photo = photograph(list[0], current, index.paths[current] + ", " + title);
    const height = index.view[0], width = index.view[1];
    photo.querySelector("canvas").remove();
    list.forEach((run, layer) => {
      const over = layer ? element("span", "photo over-right") : photo;
      if (layer) { const again = element("img"); again.src = data.photo(current); again.alt = ""; over.append(again); photo.append(over); }
      const canvas = element("canvas"), map = maps.get(run);
      if (map) paint.draw(canvas, map, height, width, settings(map));
      canvas.style.opacity = Number(state.opacity) / 100;
      canvas.setAttribute("aria-hidden", "true");
      over.append(canvas);
      if (layer && state.mode === "wipe") over.style.clipPath = "inset(0 0 0 " + state.wipe + "%)";
    });
    const caption = element("figcaption");
    caption.append(element("b", "", title), ...list.flatMap((run) => [element("br"), (list.length > 1 ? index.runs[run].name + ": " : "") + words(run, maps.get(run))]));
    figure.append(photo, caption);
    return figure;
  };
  const draw = () => {
    if (current < 0 || !shard) return;
    const maps = mapsAt(shard, current), left = Number(state.left), right = Number(state.right), mode = state.mode, panes = $("v-panes");
    const [a, b] = [index.runs[left].name, index.runs[right].name];
    panes.classList.toggle("two", mode !== "side");
    panes.classList.toggle("blinking", mode === "blink");
    panes.classList.toggle("wiping", mode === "wipe");
    $("v-scale").hidden = mode !== "difference";
    $("v-wipe-field").hidden = mode !== "wipe";
    for (const id of ["v-left", "v-right"]) $(id).parentElement.hidden = mode === "side" || (id === "v-left" && mode === "single");
    $("v-slider-field").hidden = mode === "side" || runs < 3;
    if (mode === "side") panes.replaceChildren(...index.runs.map((run, at) => pane([at], maps, run.name)));
    else if (mode === "single") panes.replaceChildren(pane([right], maps, b));
    else if (mode === "difference") {
      const both = maps.get(left) && maps.get(right), figure = pane([], maps, both ? b + " less " + a : "One of the runs has no map here");
      if (both) {
        const canvas = element("canvas");
        paint.draw(canvas, difference(maps.get(left), maps.get(right)), index.view[0], index.view[1], { colour: "diverging", fade: true });
        canvas.style.opacity = Number(state.opacity) / 100;
        figure.querySelector(".photo").append(canvas);
        paint.ramp($("v-ramp"), "diverging");
      }
      panes.replaceChildren(figure);
    } else panes.replaceChildren(pane([left, right], maps, mode === "wipe" ? a + " on the left, " + b + " on the right" : a + " and " + b + " in turn"));
    table();
    reflect();
    write();
  };
  const table = () => {
    const near = new Map((shard.alike[data.rowOf(current)] || []).filter((row) => row[1] === Number(state.method) && row[2] === stage()).map((row) => [row[0], row]));
    const head = element("tr");
    for (const [text, kind] of [["Run"], ["Prediction"], ["Score", "num"], ["Verdict"], ["Rank correlation", "num"], ["SSIM", "num"], ["IoU of the top 20 %", "num"]]) head.append(element("th", kind, text));
    const rows = index.runs.map((run, at) => {
      const row = element("tr", at === index.baseline ? "marked" : ""), mark = verdict(at, current), own = near.get(at);
      const first = element("th", "", run.name + (at === index.baseline ? " (baseline)" : ""));
      first.scope = "row";
      row.append(first, element("td", "text", name(at, current) || "—"), element("td", "", score(index.score[at][current])));
      const cell = element("td", "text");
      if (mark) cell.append(mark);
      if (at !== index.baseline && flipOf(at, current)) cell.append(" " + FLIPS[flipOf(at, current)]);
      row.append(cell, ...[3, 4, 5].map((k) => element("td", "", own && own[k] !== null ? decimal(own[k]) : "—")));
      return row;
    });
    const top = element("thead"), body = element("tbody");
    top.append(head);
    body.append(...rows);
    $("v-runs").replaceChildren(top, body);
  };
  const open = (at) => {
    current = at;
    state.image = index.ids[at];
    if (!$("viewer").open) $("viewer").showModal();
    const place = order.indexOf(at);
    $("v-title").textContent = index.paths[at];
    $("v-path").textContent = labelOf(at) ? "labelled " + labelOf(at) : "";
    $("v-place").textContent = place < 0 ? "does not match the filters" : (place + 1).toLocaleString("en") + " of " + order.length.toLocaleString("en");
    $("v-prev").disabled = place <= 0;
    $("v-next").disabled = place === order.length - 1;
    data.load(data.shardOf(at)).then((loaded) => { if (current === at) { shard = loaded; draw(); } }).catch((error) => { $("v-panes").textContent = "The maps cannot be shown: " + error.message + "."; });
  };
  const step = (by) => { const to = order[order.indexOf(current) + by]; if (to !== undefined) open(to); };

  // ------------------------------------------------------------ controls
  const options = (id, rows) => { for (const [value, text] of rows) option($(id), value, text); };
  const stages = () => {
    for (const id of ["stage", "v-stage"]) {
      $(id).replaceChildren();
      options(id, (method()?.stages || []).map((at) => [String(at), index.layers[at]]));
    }
  };
  const reflect = () => {
    stages();
    for (const field of document.querySelectorAll("#tools [name], #viewer [name]")) field.value = { stage: String(stage()), size: state.size || String(side) }[field.name] ?? state[field.name];
    const shown = state.only === "0" ? "all runs" : index.runs[Number(state.only) - 1].name;
    if ($("only")) { $("only-out").textContent = shown; $("only").setAttribute("aria-valuetext", shown); }
    $("v-slider").value = state.right;
    $("v-slider-out").textContent = index.runs[Number(state.right)].name;
    $("v-slider").setAttribute("aria-valuetext", index.runs[Number(state.right)].name);
  };
  const LOOKS = ["colour", "opacity"];
  const changed = (name, value) => {
    state[name] = value;
    if (name === "method") state.stage = "";
    const inViewer = ["mode", "left", "right", "wipe"].includes(name);
    if (!inViewer) {
      if (LOOKS.includes(name)) paintRows();
      else if (name === "only") reveal();
      else { state.page = "0"; select(); show(); }
    }
    reflect();
    if (current >= 0) draw(); else write();
  };
  const cycle = (list, value, by) => list[(list.indexOf(value) + by + list.length) % list.length];
  const KEYS = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    ",": () => changed("right", String(Math.max(0, Number(state.right) - 1))), ".": () => changed("right", String(Math.min(runs - 1, Number(state.right) + 1))),
    "[": () => changed("stage", String(cycle(method().stages, stage(), -1))), "]": () => changed("stage", String(cycle(method().stages, stage(), 1))),
    s: () => changed("mode", "side"), r: () => changed("mode", "single"), w: () => changed("mode", "wipe"), b: () => changed("mode", "blink"), d: () => changed("mode", "difference"),
    x: () => { [state.left, state.right] = [state.right, state.left]; draw(); },
    o: () => changed("opacity", { 0: "50", 50: "100" }[state.opacity] || "0"),
    c: () => changed("colour", cycle(Object.keys(exporter.colours), state.colour, 1)),
  };
  const connect = () => {
    for (const field of document.querySelectorAll("#tools [name], #viewer [name]")) {
      field.addEventListener(field.type === "range" || field.type === "search" ? "input" : "change", () => changed(field.name, field.value));
    }
    $("tools").addEventListener("submit", (event) => event.preventDefault());
    $("tools").addEventListener("reset", (event) => {
      event.preventDefault();
      Object.assign(state, Object.fromEntries(["q", "label", "flip", "run", "sort", "order", "page"].map((name) => [name, DEFAULTS[name]])));
      changed("q", "");
    });
    $("before").addEventListener("click", () => { state.page = String(Number(state.page) - 1); show(); write(); });
    $("after").addEventListener("click", () => { state.page = String(Number(state.page) + 1); show(); write(); });
    $("v-slider").addEventListener("input", () => changed("right", $("v-slider").value));
    $("v-prev").addEventListener("click", () => step(-1));
    $("v-next").addEventListener("click", () => step(1));
    $("v-close").addEventListener("click", () => $("viewer").close());
    $("viewer").addEventListener("close", () => { current = -1; state.image = ""; write(); });
    // Not of the dialog: Firefox gives it no focus where it opens while the page is loading.
    document.addEventListener("keydown", (event) => {
      if (!$("viewer").open || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
      const act = KEYS[event.key] || (/^[1-9]$/.test(event.key) && index.compared[Number(event.key) - 1] ? () => changed("method", String(Number(event.key) - 1)) : null);
      if (act) { act(); event.preventDefault(); }
    });
    const wipe = (event) => {
      const photo = event.target.closest("#v-panes figure > .photo");
      if (state.mode !== "wipe" || !photo || !(event.buttons & 1)) return;
      const box = photo.getBoundingClientRect();
      changed("wipe", String(Math.round(Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width)))));
    };
    for (const kind of ["pointerdown", "pointermove"]) $("v-panes").addEventListener(kind, wipe);
    addEventListener("hashchange", () => { read(); select(); show(); reflect(); opened(); });
  };
  const opened = () => {
    const at = state.image ? index.ids.indexOf(state.image) : -1;
    if (at >= 0) open(at); else if ($("viewer").open) $("viewer").close();
  };
  document.addEventListener("exporter-index", () => {
    index = exporter.index;
    runs = index.runs.length;
    if (index.titles.length) {
      const group = element("optgroup");
      group.label = "Measured";
      $("sort").append(group);
      for (const [at, title] of index.titles.entries()) option(group, "n" + at, title);
    }
    read();
    $("app").hidden = false;
    options("run", index.runs.map((run, at) => [String(at), run.name]).filter((_, at) => at !== index.baseline));
    options("label", index.labels.map((label) => [label, label]));
    for (const id of ["v-left", "v-right"]) options(id, index.runs.map((run, at) => [String(at), run.name]));
    for (const id of ["method", "v-method"]) options(id, index.compared.map((method, at) => [String(at), method.title]));
    for (const id of ["colour", "v-colour"]) options(id, Object.keys(exporter.colours).map((colour) => [colour, colour]));
    connect();
    select();
    show();
    reflect();
    opened();
    // The columns of a large set come when what is in sight is painted.
    const rest = () => data.columns().then(() => { index.moves = null; select(); show(); reflect(); });
    if (!data.whole()) painted.then(() => requestAnimationFrame(() => setTimeout(rest)));
  });
})();
