// What the page shows, as the part of the address after "#": a copied address shows the same view.
// Whatever makes no sense there is replaced by the default.
"use strict";
window.exporter = window.exporter || {};
(() => {
  const values = {};
  // Of the viewer alone; they leave the address with it.
  const OWN = ["image", "target", "geometry", "compare", "with", "at", "wipe", "full", "boxes", "live"];
  // The map and layer of the grid, while `values` has those of the open viewer.
  let beneath = null;
  const NAMES = ["q", "class", "label", "outcome", "min", "max", "measure", "from", "to", "maps", "sort", "map", "layer", "colour", "opacity", "fade", "threshold", "size", "image", "target", "geometry", "compare", "with", "at", "wipe", "full", "boxes", "live"];

  const defaults = () => {
    const { methods, layers } = exporter.index;
    // The deepest layer that the first method has maps at: not the input, nor a map made from several layers.
    const named = (places) => places.filter((at) => layers[at] !== "" && !exporter.index.combined.includes(at));
    const deepest = [...named([...layers.keys()]), ...named(methods.length ? methods[0].layers : [])].pop() ?? 0;
    // A screen of 4K shows few images large, and many as small as they have to be.
    const room = Math.sqrt((innerWidth - 80) * (innerHeight - 260) / Math.max(1, exporter.index.images));
    const size = innerWidth < 2400 ? 180 : Math.min(480, Math.max(300, 20 * Math.floor(room * 0.8 / 20)));
    return {
      colour: "viridis", opacity: "80", threshold: "0", size: String(size), sort: "set", wipe: "50",
      map: methods.length ? methods[0].name : "", layer: String(deepest),
    };
  };
  const within = (low, high) => (text) => /^\d+$/.test(text) && Number(text) >= low && Number(text) <= high;
  const among = (...choices) => (text) => choices.includes(text);
  const fits = () => {
    const index = exporter.index, known = index.methods.map((method) => method.name);
    const number = (text) => text === "" || Number.isFinite(Number(text));
    return {
      class: (text) => text === "" || index.classes.includes(Number(text)),
      label: (text) => text === "" || index.labels.includes(text),
      outcome: among("", "right", "wrong", "unknown"),
      maps: among("", ...Object.keys(exporter.select.BITS)),
      min: number, max: number, from: number, to: number,
      measure: (text) => text === "" || exporter.select.measure(text) !== undefined,
      sort: (text) => Object.hasOwn(exporter.select.sorts, text),
      map: among("", ...known), with: among("", "-", ...known),
      layer: within(0, index.layers.length - 1), at: within(0, index.layers.length - 1),
      colour: (text) => Object.hasOwn(exporter.colours, text),
      fade: among("", "even"),
      opacity: within(0, 100), threshold: within(0, 95), wipe: within(0, 100), size: within(120, 480),
      target: within(0, 99), geometry: among("", "original"), compare: among("", "side", "wipe"), full: among("", "1"), boxes: among("", "off"), live: (text) => text === "" || (index.live !== null && /^\d+(-\d+)?$/.test(text)),
    };
  };

  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1)), fit = fits();
    for (const name of Object.keys(values)) delete values[name];
    Object.assign(values, defaults());
    for (const name of NAMES) {
      const text = given.get(name);
      if (text !== null && (!fit[name] || fit[name](text))) values[name] = text;
    }
    if (beneath) beneath = { map: values.map, layer: values.layer };
  };
  const write = () => {
    const basis = defaults(), out = new URLSearchParams();
    for (const name of NAMES) {
      const value = values[name];
      if (value !== undefined && value !== (basis[name] ?? "")) out.set(name, value);
    }
    const text = out.toString();
    if ("#" + text !== location.hash) history.replaceState(null, "", text ? "#" + text : location.pathname);
  };
  const grid = () => beneath || values;
  const enter = () => { beneath ??= { map: values.map, layer: values.layer }; };
  const leave = () => {
    for (const name of OWN) delete values[name];
    Object.assign(values, { wipe: defaults().wipe }, beneath);
    beneath = null;
  };
  exporter.state = { values, read, write, grid, enter, leave };
})();
