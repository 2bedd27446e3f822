// The grid and its form: elements exist only for the tiles in sight.
"use strict";
(() => {
  const GAP = 14, BESIDE = 2, MOST_HIGH = 15e6;
  // Pixels across a tile's map: enough for its at most 28 cells; the browser enlarges the rest.
  const PAINTED = 96;
  // Images that are printed at most.
  const ON_PAPER = 1000;
  // Rows beside those in sight; none until the page is there.
  let beside = 0;
  let printing = false;
  const $ = (id) => document.getElementById(id);
  const { element } = exporter;
  const { BITS, name, className } = exporter.select;
  const { fill, reflect, names, panel } = exporter.form;
  const { values: state, read, write, grid } = exporter.state;
  // The images that match, in order; of a large set only its beginning until all columns are there.
  let index, order = [], focused = 0, columns = 1, tile = 180, caption = 70, tall = 250;
  const live = new Map();

  // ------------------------------------------------------------ tiles
  const many = () => exporter.data.whole() ? order.length : index.images;
  const measure = () => {
    const grid = $("grid"), width = grid.clientWidth;
    const wish = Math.min(Number(state.size) || 180, width);
    columns = Math.max(1, Math.floor((width + GAP) / (wish + GAP)));
    if (width < 480) columns = Math.max(columns, 2);
    tile = Math.floor((width - GAP * (columns - 1)) / columns);
    caption = Math.ceil(4.4 * parseFloat(getComputedStyle(document.documentElement).fontSize));
    tall = Math.round(tile * index.view[0] / index.view[1]) + caption + GAP;
    grid.style.height = Math.min(MOST_HIGH, Math.ceil(many() / columns) * tall) + "px";
  };
  // Beyond what browsers can scroll, a step of the scroll bar covers more than a row.
  const stretch = () => Math.max(1, Math.ceil(many() / columns) * tall / MOST_HIGH);

  const chosen = () => index.methods.findIndex((method) => method.name === grid().map);
  // The chosen layer, or the deepest that the method has maps at where it has none there.
  const layerOf = (method) => {
    const layers = index.methods[method].layers, layer = Number(grid().layer);
    return layers.includes(layer) || !layers.length ? layer : layers[layers.length - 1];
  };
  const paint = (entry) => {
    const method = chosen(), { position, canvas } = entry;
    exporter.paint.release(canvas);
    if (method < 0 || exporter.data.unread(position)) return;
    exporter.data.load(exporter.data.shardOf(position)).then((shard) => {
      if (live.get(entry.place) !== entry || method !== chosen()) return;
      const maps = exporter.data.mapsOf(shard, exporter.data.rowOf(position)).filter((map) => map.method === method);
      const map = maps.find((each) => each.layer === layerOf(method));
      if (!map) return;
      const height = Math.round(PAINTED * index.view[0] / index.view[1]);
      exporter.paint.draw(canvas, map, height, PAINTED, exporter.stage.settings(map));
      canvas.style.opacity = Number(state.opacity) / 100;
    }).catch((error) => { entry.element.title = error.message; });
  };

  const make = (place) => {
    const position = order[place];
    const item = element("li"), button = element("button", "tile"), canvas = element("canvas");
    const picture = element("span", "photo"), words = element("span", "words");
    item.setAttribute("aria-setsize", many());
    item.setAttribute("aria-posinset", place + 1);
    button.type = "button";
    button.dataset.control = "tile";
    button.dataset.place = place;
    button.tabIndex = place === focused ? 0 : -1;
    canvas.setAttribute("aria-hidden", "true");
    const line = (className, content) => {
      const span = element("span", className, content);
      words.append(span);
      return span;
    };
    const unread = exporter.data.unread(position);
    if (unread) {
      picture.classList.add("unread");
      picture.textContent = "not read";
    } else {
      const image = element("img");
      image.src = exporter.data.photo(position);
      const shown = chosen() < 0 ? "no map" : index.methods[chosen()].title + " over it";
      image.alt = "Photograph: " + className(position) + ", " + exporter.score(index.score[position]) + "; " + shown;
      image.decoding = "async";
      image.draggable = false;
      picture.append(image, canvas);
      const head = line("name", className(position) || exporter.score(index.score[position]));
      head.title = head.textContent;
      const facts = line("num", className(position) ? exporter.score(index.score[position]) : "");
      const mark = exporter.verdict(index.correct[position]);
      if (mark) facts.append(mark);
      if (index.flags[position] & BITS.flagged) facts.append(element("span", "flag", " flagged"));
    }
    line("file", name(position)).title = index.paths[position];
    button.append(picture, words);
    item.append(button);
    return { place, position, element: item, button, canvas };
  };

  const drop = (entry) => {
    exporter.paint.release(entry.canvas);
    entry.element.remove();
    live.delete(entry.place);
  };

  const show = () => {
    const grid = $("grid"), top = grid.getBoundingClientRect().top, factor = stretch();
    const from = printing ? 0 : Math.max(0, Math.floor(-top * factor / tall) - beside) * columns;
    const rows = Math.ceil(innerHeight / tall) + 2 * beside + 1;
    const to = Math.min(order.length, printing ? ON_PAPER : from + rows * columns);
    for (const entry of [...live.values()]) {
      if ((entry.place < from || entry.place >= to) && entry.button !== document.activeElement) drop(entry);
    }
    const height = Math.round(tile * index.view[0] / index.view[1]);
    const shift = factor > 1 ? Math.max(0, -top) * (1 - factor) : 0;
    for (let place = from; place < to; place++) {
      let entry = live.get(place);
      if (!entry) {
        entry = make(place);
        live.set(place, entry);
        const after = live.get(place + 1);
        grid.insertBefore(entry.element, after ? after.element : null);
        paint(entry);
      }
      const style = entry.element.style;
      style.width = tile + "px";
      style.height = tall - GAP + "px";
      style.transform = "translate(" + (place % columns) * (tile + GAP) + "px," + (Math.floor(place / columns) * tall + shift) + "px)";
      entry.button.firstChild.style.height = height + "px";
    }
  };
  // On paper all images are there, in the flow of the page; of very many the first, and it says so.
  const paper = () => {
    if ($("viewer").open) return;
    printing = true;
    const bare = chosen() < 0 ? 0 : order.slice(0, ON_PAPER).filter((at) => !exporter.data.unread(at) && !exporter.data.loaded(exporter.data.shardOf(at))).length;
    const said = order.length > ON_PAPER ? ["Only the first " + ON_PAPER.toLocaleString("en") + " of them are printed; filters choose others."] : [];
    if (bare) said.push(exporter.images(bare) + " of these " + (bare === 1 ? "is" : "are") + " printed without the map, which this page had not loaded: scroll past them first, or filter.");
    $("grid-paper").hidden = !said.length;
    $("grid-paper").textContent = said.join(" ");
    show();
  };
  const screen = () => {
    printing = false;
    $("grid-paper").hidden = true;
    show();
  };
  let frame = 0;
  const soon = () => { frame ||= requestAnimationFrame(() => { frame = 0; show(); }); };

  const refresh = () => {
    order = exporter.select.select(state);
    focused = 0;
    for (const entry of [...live.values()]) drop(entry);
    $("none").hidden = order.length > 0;
    const all = index.images;
    $("count").textContent = (many() === all ? "" : order.length.toLocaleString("en") + " of ") + exporter.images(all);
    const method = chosen();
    $("grid-caption").textContent = method < 0 ? "Photographs as the model sees them." :
      index.methods[method].title + (index.methods[method].pixel ? "" : " at " + exporter.layerWords(index.layers[layerOf(method)])) + ", each map scaled between its own smallest and largest value.";
    measure();
    show();
    write();
    exporter.grid.changed();
  };

  const move = (to) => {
    if (!order.length) return;
    const place = Math.min(Math.max(to, 0), order.length - 1);
    const old = live.get(focused);
    if (old) old.button.tabIndex = -1;
    focused = place;
    const y = $("grid").getBoundingClientRect().top + Math.floor(place / columns) * tall / stretch();
    const bar = $("tools").getBoundingClientRect().bottom;
    if (y < Math.max(bar, 60) || y + tall > innerHeight) scrollBy({ top: y - Math.max(bar, 60) - 12, behavior: "instant" });
    show();
    const entry = live.get(place);
    if (entry) { entry.button.tabIndex = 0; entry.button.focus({ preventScroll: true }); }
  };

  const begin = () => {
    index = exporter.index;
    exporter.select.measured();
    read();
    fill();
    reflect();
    $("app").hidden = false;
    $("grid").style.setProperty("--view", index.view[1] / index.view[0]);
    let typing = 0;
    $("tools").addEventListener("input", (event) => {
      state[event.target.name] = event.target.value;
      if (event.target.name === "measure") { state.from = state.to = ""; reflect(); }
      clearTimeout(typing);
      typing = setTimeout(refresh, event.target.type === "search" ? 120 : 0);
    });
    panel();
    $("tools").addEventListener("submit", (event) => event.preventDefault());
    const clear = () => {
      for (const field of ["q", "class", "label", "outcome", "min", "max", "measure", "from", "to", "maps"]) state[field] = "";
      state.sort = "set";
      reflect();
      refresh();
      $("q").focus();
    };
    $("tools").addEventListener("reset", (event) => { event.preventDefault(); clear(); });
    $("clear").addEventListener("click", clear);
    $("grid").addEventListener("click", (event) => {
      const button = event.target.closest("button.tile");
      if (button) exporter.viewer.open(order[Number(button.dataset.place)]);
    });
    $("grid").addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity, PageDown: 4 * columns, PageUp: -4 * columns }[event.key];
      if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(focused + step);
    });
    addEventListener("scroll", soon, { passive: true });
    addEventListener("beforeprint", paper);
    addEventListener("afterprint", screen);
    new ResizeObserver(() => { measure(); soon(); }).observe($("grid"));
    addEventListener("hashchange", () => {
      // A place on this page, such as the skip link's: the state stays, and is in the address again.
      if (document.getElementById(location.hash.slice(1)) && !document.body.classList.contains("single")) { write(); return; }
      read();
      reflect();
      refresh();
      exporter.viewer.restore();
    });
    exporter.grid = {
      reflect, changed: () => exporter.viewer.placed(),
      order: () => order,
      repaint: () => { for (const entry of live.values()) paint(entry); },
      focus: (position) => move(Math.max(0, order.indexOf(position))),
    };
    exporter.viewer.begin();
    refresh();
    exporter.viewer.restore();
    // The columns of all images do not change what is in sight of the set's beginning.
    const later = () => {
      beside = BESIDE;
      soon();
      if (exporter.data.whole()) names();
      else exporter.data.columns().then(complete).catch((error) => { $("count").textContent = "Only the first images can be shown: " + error.message + "."; });
    };
    const complete = () => {
      names();
      const beginning = order;
      order = exporter.select.select(state);
      if (beginning.length !== index.perShard || beginning.some((position, place) => order[place] !== position)) refresh();
      else { measure(); show(); }
      exporter.viewer.restore();
      exporter.viewer.placed();
    };
    const idle = () => window.requestIdleCallback ? requestIdleCallback(later, { timeout: 1000 }) : setTimeout(later, 200);
    if (document.readyState === "complete") idle(); else addEventListener("load", idle);
  };
  document.addEventListener("exporter-index", begin);
})();
