// Which images fit the filters, and in which order: loops over the columns of the index.
"use strict";
window.exporter = window.exporter || {};
(() => {
  const BITS = { zero: 1, constant: 2, nan: 4, negative: 8, noise: 16, flagged: 31 };
  const search = [];

  const file = (path) => path.slice(path.lastIndexOf("/") + 1);
  let several; // names that files of more than one folder have
  const name = (position) => {
    const paths = exporter.index.paths, own = file(paths[position]);
    if (!several) {
      const seen = new Set();
      several = new Set(paths.map(file).filter((each) => seen.size === seen.add(each).size));
    }
    return several.has(own) ? paths[position].split("/").slice(-2).join("/") : own;
  };
  const className = (position) => {
    const index = exporter.index, at = index.predicted[position];
    return at < 0 ? "" : index.names[index.classes[at]] || "class " + index.classes[at];
  };
  const labelName = (position) => {
    const index = exporter.index;
    return index.label[position] < 0 ? "" : index.labels[index.label[position]];
  };
  const text = (position) => search[position] ??= (exporter.index.paths[position] + "\n" + labelName(position) + "\n" + className(position)).toLowerCase();

  const byNumber = (column, sign) => (a, b) => {
    if (column[a] === null || column[b] === null) return (column[a] === null) - (column[b] === null) || a - b;
    return sign * (column[a] - column[b]) || a - b;
  };
  const byText = (of) => {
    const collator = new Intl.Collator(undefined, { numeric: true });
    return (rows) => {
      const keys = new Map(rows.map((i) => [i, of(i)]));
      return rows.sort((a, b) => (keys.get(a) === "") - (keys.get(b) === "") || collator.compare(keys.get(a), keys.get(b)) || a - b);
    };
  };
  const sorts = {
    set: ["set order", (rows) => rows],
    high: ["score, high first", (rows) => rows.sort(byNumber(exporter.index.score, -1))],
    low: ["score, low first", (rows) => rows.sort(byNumber(exporter.index.score, 1))],
    loss: ["loss, high first", (rows) => rows.sort(byNumber(exporter.index.loss, -1))],
    name: ["name", byText(name)],
    predicted: ["predicted class", byText(className)],
    label: ["label", byText(labelName)],
  };

  const measure = (name) => exporter.index.measures.find((known) => known.name === name);
  // Each measure sorts both ways; what the index does not have is not offered.
  const measured = () => {
    for (const known of exporter.index.measures) {
      const title = known.title[0].toLowerCase() + known.title.slice(1);
      sorts[known.name] = [title + ", low first", (rows) => rows.sort(byNumber(known.values, 1))];
      sorts[known.name + "-high"] = [title + ", high first", (rows) => rows.sort(byNumber(known.values, -1))];
    }
  };

  const select = (state) => {
    const index = exporter.index, rows = index.ids.length, score = index.score, out = [];
    const q = (state.q || "").trim().toLowerCase();
    const wanted = state.class ? index.classes.indexOf(Number(state.class)) : null;
    const label = state.label ? index.labels.indexOf(state.label) : null;
    const scale = index.probability ? 0.01 : 1;
    const low = state.min ? Number(state.min) * scale : -Infinity;
    const high = state.max ? Number(state.max) * scale : Infinity;
    const mark = new Map([["right", "1"], ["wrong", "0"], ["unknown", "-"]]).get(state.outcome);
    const values = state.measure && measure(state.measure).values;
    const from = state.from ? Number(state.from) : -Infinity, to = state.to ? Number(state.to) : Infinity;
    const bits = Object.hasOwn(BITS, state.maps) ? BITS[state.maps] : 0;
    for (let i = 0; i < rows; i++) {
      if (wanted !== null && index.predicted[i] !== wanted) continue;
      if (label !== null && index.label[i] !== label) continue;
      if (mark && index.correct[i] !== mark) continue;
      if (bits && !(index.flags[i] & bits)) continue;
      if ((state.min || state.max) && !(score[i] !== null && score[i] >= low && score[i] <= high)) continue;
      if (values && !(values[i] !== null && values[i] >= from && values[i] <= to)) continue;
      if (q && !text(i).includes(q)) continue;
      out.push(i);
    }
    return sorts[Object.hasOwn(sorts, state.sort) ? state.sort : "set"][1](out);
  };
  exporter.select = { BITS, measure, measured, name, className, labelName, sorts, select };
})();
