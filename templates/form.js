// The form over the grid: what its lists offer, and the state it shows.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const FIELDS = ["q", "class", "label", "outcome", "min", "max", "measure", "from", "to", "maps", "sort", "map", "layer", "colour", "opacity", "fade", "size"];
  const { option } = exporter;
  const { BITS, sorts } = exporter.select;
  const { values: state } = exporter.state;

  // How many images have each value of a column whose entries are places in a list, or -1.
  const counted = (column, list) => {
    const counts = new Array(list.length).fill(0);
    for (const at of column) if (at >= 0) counts[at]++;
    return counts;
  };

  // The lists of classes and labels may be a thousand lines long, which takes longer than the rest of
  // the page: they are filled after it, or before where the address asks for one of them.
  let named = false;
  const names = () => {
    if (named || !exporter.data.whole()) return;
    named = true;
    const { index } = exporter, collator = new Intl.Collator();
    const list = (id, rows) => {
      const parts = document.createDocumentFragment();
      rows.sort((a, b) => collator.compare(a[0], b[0]));
      for (const [title, value, count] of rows) if (count) option(parts, value, title + " (" + count + ")");
      $(id).append(parts);
      $(id).value = state[id] ?? "";
    };
    const predicted = counted(index.predicted, index.classes), given = counted(index.label, index.labels);
    list("class", index.classes.map((number, at) => [index.names[number] || "class " + number, number, predicted[at]]));
    list("label", index.labels.map((label, at) => [label, label, given[at]]));
  };

  const fill = () => {
    const { index } = exporter;
    for (const { name, title } of index.measures) option($("measure"), name, title);
    for (const [key, [title]] of Object.entries(sorts)) {
      if (key === "loss" && !index.losses) continue;
      if (key === "label" && !index.labels.length) continue;
      if (key === "predicted" && !index.classes.length) continue;
      option($("sort"), key, title);
    }
    for (const method of index.methods) option($("map"), method.name, method.title);
    index.layers.forEach((layer, at) => { if (layer) option($("layer"), at, layer); });
    for (const name of Object.keys(exporter.colours)) option($("colour"), name, name);
    $("score-name").textContent = index.probability ? (index.scoreUnit === "probability" ? "Score, %" : "Area, %") : "Score, raw";
    for (const entry of [...$("maps").options]) if (entry.value && !(index.bits & BITS[entry.value])) entry.remove();
    const offered = {
      class: index.classes.length, label: index.labels.length, maps: index.bits & BITS.flagged, measure: index.measures.length, layer: $("layer").options.length,
      outcome: index.judged,
    };
    for (const [id, some] of Object.entries(offered)) $(id).closest(".field").hidden = !some;
    for (const id of ["class", "label"]) for (const kind of ["pointerdown", "focus"]) $(id).addEventListener(kind, names);
  };
  const reflect = () => {
    if (state.class || state.label) names();
    const shown = { ...state, ...exporter.state.grid() };
    for (const field of FIELDS) $(field).value = shown[field] ?? "";
    for (const end of ["from", "to"]) $(end).hidden = !state.measure;
  };
  // The panel closes as a menu does: with Escape, or a click beside it.
  const panel = () => {
    const look = document.querySelector("details.look");
    document.addEventListener("pointerdown", (event) => { if (!look.contains(event.target)) look.open = false; });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !look.open || document.querySelector("dialog[open]")) return;
      look.open = false;
      look.querySelector("summary").focus();
    });
  };
  exporter.form = { fill, reflect, names, panel };
})();
