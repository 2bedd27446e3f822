// The viewer: opens an image, moves among the images that match, and connects the controls to the stage.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { now, stage, matrix, beside } = exporter;
  const { values: state, write, enter, leave } = exporter.state;

  const draw = () => {
    now.other = stage.comparing() ? matrix.other(now.current) : null;
    stage.show();
    matrix.mark();
    write();
  };
  const choose = (map) => {
    now.current = map;
    if (map && !map.by) {
      state.live = "";
      exporter.live.reset();
      state.map = exporter.index.methods[map.method].name;
      if (exporter.index.layers[map.layer] !== "") state.layer = String(map.layer);
    }
    draw();
  };
  const title = (at) => {
    const { className } = exporter.select, unread = exporter.data.unread(at);
    $("v-title").textContent = unread ? "Not read" : [className(at), exporter.score(exporter.index.score[at])].filter(Boolean).join(", ");
    $("v-path").textContent = exporter.index.paths[at];
    $("viewer").classList.toggle("unread", unread);
    if (!unread) for (const id of ["v-img", "w-img"]) $(id).src = exporter.data.photo(at);
  };

  const open = (at) => {
    enter();
    now.position = at;
    Object.assign(now, { shard: null, maps: [], current: null, other: null });
    stage.point(null);
    exporter.figure.forget();
    state.image = exporter.index.ids[at];
    if (!$("viewer").open) $("viewer").showModal();
    full(state.full === "1");
    title(at);
    placed();
    for (const id of ["v-heat", "w-heat"]) exporter.paint.release($(id));
    write();
    exporter.data.load(exporter.data.shardOf(at)).then((loaded) => {
      if (now.position === at) fill(loaded, at);
    }).catch((error) => { $("v-caption").textContent = "The maps cannot be shown: " + error.message + "."; });
  };
  const fill = (loaded, at) => {
    const row = exporter.data.rowOf(at);
    now.shard = loaded;
    now.maps = exporter.data.mapsOf(loaded, row);
    matrix.fillTargets();
    if (exporter.data.unread(at)) {
      $("v-caption").textContent = "This image could not be read: " + loaded.error[row] + ".";
      $("v-facts").replaceChildren();
      $("v-links").replaceChildren();
      return;
    }
    $("v-geometry-field").hidden = !stage.shape();
    $("v-compare-field").hidden = !now.maps.length;
    stage.frame();
    matrix.build(choose);
    beside.predictions();
    beside.facts();
    beside.near();
    beside.activations();
    shown();
  };
  // The map that the address asks for; that of any class comes when what it takes is loaded.
  const shown = () => {
    const { live } = state;
    exporter.live.reset();
    choose(matrix.preferred());
    state.live = live;
    write();
    exporter.live.show(choose);
  };

  const placed = () => {
    if (now.position < 0) return;
    const order = exporter.grid.order(), at = order.indexOf(now.position);
    $("v-place").textContent = at < 0 ? "does not match the filters" : (at + 1).toLocaleString("en") + " of " + order.length.toLocaleString("en") + (order.length < exporter.index.images ? " matching images" : "");
    $("v-prev").disabled = at === 0;
    $("v-next").disabled = at >= 0 && at === order.length - 1;
  };
  const step = (by) => {
    const order = exporter.grid.order(), at = order.indexOf(now.position);
    const to = at < 0 ? 0 : at + by;
    if (to >= 0 && to < order.length) open(order[to]);
  };
  const repaint = () => {
    if (now.current) { stage.show(); matrix.paint(); beside.activations(); }
    exporter.grid.repaint();
    exporter.grid.reflect();
    write();
  };
  const soon = (() => {
    let frame = 0;
    return () => { frame ||= requestAnimationFrame(() => { frame = 0; if (now.current) { stage.show(); matrix.paint(); } write(); }); };
  })();

  // ------------------------------------------------------------ what controls and keys do
  const full = (on) => {
    $("viewer").classList.toggle("full", on);
    $("v-full").setAttribute("aria-pressed", String(on));
    state.full = on ? "1" : "";
  };
  const geometry = (value) => { state.geometry = value; stage.frame(); stage.show(); write(); };
  const compare = (value) => { state.compare = value; draw(); };
  const method = (name) => { state.map = name; choose(matrix.preferred()); };
  const layer = (by) => {
    const row = matrix.visible().filter((map) => map.method === now.current.method);
    if (row.length) choose(row[(row.indexOf(now.current) + by + row.length) % row.length]);
  };
  const remember = (map) => {
    state.with = map ? exporter.index.methods[map.method].name : "-";
    state.at = map ? String(map.layer) : "";
  };
  const swap = () => {
    const { current, other } = now;
    if (!other || current.by) return;
    remember(current);
    choose(other);
  };

  const boxes = () => {
    state.boxes = state.boxes === "off" ? "" : "off";
    exporter.boxes.show();
    write();
  };

  const controls = () => {
    const on = (id, kind, act) => $(id).addEventListener(kind, act);
    for (const name of Object.keys(exporter.colours)) exporter.option($("v-colour"), name, name + (name === "diverging" ? " (signed)" : ""));
    on("v-prev", "click", () => step(-1));
    on("v-next", "click", () => step(1));
    on("v-close", "click", () => $("viewer").close());
    on("v-full", "click", () => { full(state.full !== "1"); write(); });
    on("v-swap", "click", swap);
    on("v-boxes", "click", boxes);
    on("v-ranges", "click", () => $("v-ranges").setAttribute("aria-pressed", String($("v-table").classList.toggle("ranges"))));
    for (const name of ["opacity", "threshold"]) {
      on("v-" + name, "input", (event) => { state[name] = event.target.value; soon(); });
      on("v-" + name, "change", repaint);
    }
    on("v-wipe", "input", (event) => { state.wipe = event.target.value; stage.wipe(); stage.reflect(); });
    on("v-wipe", "change", write);
    on("v-colour", "change", (event) => { state.colour = event.target.value; repaint(); });
    on("v-geometry", "change", (event) => geometry(event.target.value));
    on("v-compare", "change", (event) => compare(event.target.value));
    on("v-with", "change", (event) => {
      const [a, b] = event.target.value.split(" ").map(Number);
      remember(matrix.visible().find((map) => map.method === a && map.layer === b) || null);
      draw();
    });
    on("v-target", "change", (event) => { state.target = event.target.value; matrix.build(choose); choose(matrix.preferred()); });
    on("viewer", "click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
    on("viewer", "close", closed);
    stage.begin(write);
    exporter.figure.begin();
    exporter.live.begin(choose);
  };
  const closed = () => {
    const last = now.position;
    Object.assign(now, { position: -1, shard: null, maps: [], current: null, other: null });
    full(false);
    leave();
    matrix.clear();
    write();
    exporter.grid.focus(last);
  };
  const restore = () => {
    const at = state.image ? exporter.index.ids.indexOf(state.image) : -1;
    if (at >= 0 && at !== now.position) open(at);
    else if (at >= 0 && now.shard) { full(state.full === "1"); stage.frame(); matrix.build(choose); shown(); }
    else if (at < 0 && $("viewer").open) $("viewer").close();
  };
  const begin = () => { controls(); exporter.keys.begin(); };
  exporter.viewer = { begin, open, restore, placed, step, choose, repaint, full, geometry, compare, method, layer, swap, boxes };
})();
