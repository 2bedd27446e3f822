// The map of any class that is typed or picked, or of one less another, of the images that carry it: what it
// takes is loaded when it is first asked for.
"use strict";
(() => {
  const SHOWN = 8, OFFERED = 12;
  const $ = (id) => document.getElementById(id);
  const { now } = exporter;
  const { values: state, write } = exporter.state;
  const { element } = exporter;
  const images = new Map();
  let head = null, loading = null;

  window.exporterHead = (contents) => { head = contents; };
  window.exporterLive = (id, contents) => { images.set(id, contents); };

  const inflate = async (text) => {
    const stream = new Blob([exporter.paint.bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  };
  const numbers = async ({ lo, step, levels }, kind) => Float32Array.from(new kind(await inflate(levels)), (level) => lo + level * step);
  const headOf = async () => {
    // Several may ask before it is there: it is loaded once, or again where that failed.
    if (!head) await (loading ??= exporter.data.script("live/head.js").finally(() => { loading = null; }));
    if (!head.read) {
      const { floats } = exporter.paint;
      const read = { bias: floats(head.bias), step: floats(head.step), scale: floats(head.scale), rows: new Int8Array(await inflate(head.rows)) };
      head.names.forEach((name, at) => { exporter.index.names[at] ??= name; });
      head.read = read;
      head.rows = "";
    }
    return head.read;
  };
  const imageOf = async (position) => {
    const id = exporter.index.ids[position];
    if (!images.has(id)) await exporter.data.script("live/" + id + ".js");
    const image = images.get(id);
    image.read ??= {
      lo: await numbers(image.lo, Uint16Array), span: await numbers(image.span, Uint16Array),
      means: await numbers(image.means, Uint8Array), maps: new Uint8Array(await inflate(image.maps)),
    };
    return image;
  };

  // The map of a class, or of it less another's; its mean with the bias is the logit, or their difference.
  const paint = async (position, [first, second]) => {
    const read = await headOf(), image = await imageOf(position);
    const { height, width, full, steps } = image, { lo, span, means, maps } = image.read, cells = height * width;
    const values = new Float32Array(cells);
    let bias = 0;
    for (const [at, sign] of [[first, 1], [second, -1]]) {
      if (at === undefined) continue;
      bias += sign * read.bias[at];
      for (let i = 0; i < cells; i++) values[i] += sign * (lo[at] + span[at] * maps[at * cells + i] / steps);
    }
    const classes = read.bias.length, parts = [];
    for (let channel = 0; channel < means.length; channel++) {
      if (!read.scale[channel]) continue;
      const weight = (at) => at === undefined ? 0 : read.rows[channel * classes + at] * read.step[at];
      parts.push([channel, (weight(first) - weight(second)) * means[channel] / read.scale[channel]]);
    }
    parts.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    const mean = values.reduce((sum, value) => sum + value, 0) / cells;
    const [least, most] = exporter.paint.range(values, false, false);
    return {
      mean, bias, channels: parts.slice(0, SHOWN).filter(([, part]) => part !== 0),
      map: {
        by: { name: "cam", title: "CAM", relu: false }, layer: exporter.index.live.layer, part: 0,
        target: "class:" + first + (second === undefined ? "" : "-" + second),
        height, width, fullHeight: full[0], fullWidth: full[1], lo: least, hi: most, flags: [], values: () => values,
      },
    };
  };

  // ------------------------------------------------------------ classes by name or number
  const title = (at) => exporter.index.names[at] || "class " + at;
  // A class by its name, its number, or what its name begins with or contains; -1 for none.
  const named = (text) => {
    const wanted = text.trim().toLowerCase(), known = head.names.map((name) => name.toLowerCase());
    if (/^(class )?\d+$/.test(wanted)) {
      const at = Number(wanted.replace("class ", ""));
      return at < head.read.bias.length ? at : -1;
    }
    const beginning = known.findIndex((name) => name.startsWith(wanted));
    return known.includes(wanted) ? known.indexOf(wanted) : beginning >= 0 ? beginning : known.findIndex((name) => name.includes(wanted));
  };
  const offer = (text) => {
    const list = $("v-live-classes"), wanted = text.trim().toLowerCase();
    list.replaceChildren();
    head.names.forEach((name, at) => {
      if (list.childElementCount >= OFFERED || !name.toLowerCase().includes(wanted)) return;
      exporter.option(list, head.names.indexOf(name) === at ? name : String(at), "class " + at);
    });
  };

  const say = (text) => { $("v-live-said").textContent = text; $("v-live-channels").replaceChildren(); };
  const asked = () => (state.live || "").split("-").filter(Boolean).map(Number);
  const there = () => Boolean(exporter.index.live) && exporter.index.live.images.includes(now.position);
  const tell = ({ mean, bias, channels }, [first, second]) => {
    const { number } = exporter, both = second !== undefined;
    say((both ? "Logit of " + title(first) + " less that of " + title(second) : "Logit of " + title(first)) + ": " + number(mean + bias) +
      ", the mean of the map, " + number(mean) + ", and the " + (both ? "biases’ difference, " : "bias, ") + number(bias) + ". What the channels add to it:");
    const layer = exporter.index.layers[exporter.index.live.layer];
    for (const [channel, part] of channels) {
      const item = element("li"), name = element("span", "name");
      name.append(exporter.beside.named(layer, channel));
      item.append(name, element("span", "num", (part > 0 ? "+" : "") + number(part, 2)));
      $("v-live-channels").append(item);
    }
  };
  const failed = (error) => say("The map cannot be shown: " + error.message + ".");
  // Paints what the address asks for; the map that is given to `choose` is on the stage then.
  const show = (choose) => {
    const position = now.position, classes = asked();
    if (!classes.length || !there()) return;
    paint(position, classes).then((painted) => {
      if (position !== now.position || String(classes) !== String(asked())) return;
      if (classes.some((at) => at >= head.read.bias.length)) { state.live = ""; reset(); return; }
      ["a", "b"].forEach((end, at) => { $("v-live-" + end).value = classes[at] === undefined ? "" : title(classes[at]); });
      choose(painted.map);
      tell(painted, classes);
    }).catch(failed);
  };
  const reset = () => {
    const { live } = exporter.index;
    if (!$("v-live-a")) return;
    for (const end of ["a", "b"]) { $("v-live-" + end).value = ""; $("v-live-" + end).disabled = !there(); }
    say(there() || !live ? "" : "Available only for the " + exporter.images(live.images.length) + " that --keep selects.");
  };
  const pick = (choose) => {
    headOf().then(() => {
      const texts = ["a", "b"].map((end) => $("v-live-" + end).value).map((text, at) => at || text.trim() ? text : "");
      const classes = texts.filter((text) => text.trim()).map(named), unknown = classes.indexOf(-1);
      if (!texts[0].trim()) { state.live = ""; say(""); write(); return; }
      if (unknown >= 0) { say("No class is called “" + texts[unknown].trim() + "”."); return; }
      state.live = classes.join("-");
      show(choose);
    }).catch(failed);
  };
  const begin = (choose) => {
    for (const end of ["a", "b"]) {
      const field = $("v-live-" + end);
      if (!field) return;
      const offered = () => headOf().then(() => offer(field.value)).catch(failed);
      field.addEventListener("focus", offered);
      field.addEventListener("input", offered);
      field.addEventListener("change", () => pick(choose));
    }
  };
  exporter.live = { begin, paint, show, reset };
})();
