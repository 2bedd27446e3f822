// What stands beside the maps of the open image: predictions, facts, links and the strongest channels.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const now = exporter.now;
  const { values: state } = exporter.state;
  const { element } = exporter;
  const KEPT = 64;

  const predictions = () => {
    const index = exporter.index, list = $("v-predictions"), given = now.shard.p[exporter.data.rowOf(now.position)];
    list.replaceChildren();
    list.closest("section").hidden = !given.length;
    for (let i = 0; i < given.length; i += 2) {
      const item = element("li"), score = given[i + 1], title = index.names[given[i]] || "class " + given[i];
      const name = index.classPages && index.classPages.includes(given[i]) ? element("a", "name", title) : element("span", "name", title);
      if (name.tagName === "A") {
        name.href = "classes/" + given[i] + ".html";
        name.dataset.control = "viewer-class";
      }
      item.append(name, element("span", "num", exporter.score(score)));
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
    const index = exporter.index, position = now.position, list = $("v-facts");
    list.replaceChildren();
    const add = (name, value, className) => {
      if (value !== "" && value !== null && value !== undefined) list.append(element("dt", "", name), element("dd", className || "", value));
    };
    add("Note", index.notes[position], "author");
    const mark = index.correct[position];
    add("Label", exporter.select.labelName(position));
    add("Verdict", mark === "1" ? "✓ right" : mark === "0" ? "✗ wrong" : "", mark === "1" ? "right" : "wrong");
    if (index.loss[position] !== null) add("Loss", exporter.number(index.loss[position]) + " nats (cross-entropy)");
    for (const { title, unit, values } of index.measures) if (values[position] !== null) add(title, exporter.number(values[position]) + " (" + unit + ")");
    const original = exporter.stage.shape();
    if (original) {
      add("Original", original.size.join(" × ") + " pixels");
      const [left, top, right, bottom] = original.crop.map((value) => Math.round(10 * value) / 10);
      add("Model's view", index.view[1] + " × " + index.view[0] + " pixels, from x " + left + "–" + right + ", y " + top + "–" + bottom + " of the original");
    }
    add("File", index.paths[position], "path");
    add("Id", index.ids[position], "path");
    links();
  };
  // As exporter/writers/links.py writes a tag and escapes it in a regular expression.
  const tagged = (text) => text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, " ").replace(/"/g, "'").replace(/\\/g, "/").replace(/[\\^$.|?*+()[\]{}]/g, "\\$&");
  const links = () => {
    const index = exporter.index, position = now.position, links = $("v-links");
    links.replaceChildren();
    const photo = element("a", "", "Open the photograph");
    photo.href = exporter.data.photo(position);
    photo.dataset.control = "viewer-photo";
    links.append(photo);
    if (index.tensorboard && index.flags[position] & KEPT) {
      const link = element("a", "", "In TensorBoard");
      const path = tagged(index.paths[position].replace(/^(?:\/|~[^\\/]*[\\/]|[A-Za-z]:[\\/]|\\\\)(?:.*[\\/])?/, "")), id = tagged(index.ids[position]);
      link.href = index.tensorboard.replace(/\/+$/, "") + "/#images&tagFilter=" + encodeURIComponent("^[^/]+/" + path + "(@" + id + ")?$");
      link.rel = "noreferrer";
      link.dataset.control = "viewer-tensorboard";
      links.append(" · ", link);
    }
  };

  const near = () => {
    const { index } = exporter, position = now.position, found = (index.near || {})[position] || [];
    $("v-near-section").hidden = true;
    $("v-near").replaceChildren();
    if (!found.length) return;
    exporter.data.columns().then(() => {
      if (now.position !== position) return;
      $("v-near-section").hidden = false;
      $("v-near").replaceChildren(...found.map(([at, cosine]) => {
        const item = element("li"), open = element("button", "quiet"), photo = element("img");
        open.type = "button";
        open.dataset.control = "viewer-near";
        photo.src = exporter.data.photo(at);
        photo.alt = "Photograph " + index.paths[at];
        open.append(photo, element("span", "num", cosine.toFixed(2)));
        open.addEventListener("click", () => exporter.viewer.open(at));
        item.append(open);
        return item;
      }));
    });
  };

  // A channel's place among the pages of its layer; null where the layer has none.
  const channelPage = (layer, channel) => {
    const pages = exporter.index.channelPages[layer];
    if (!pages || channel >= pages[1]) return null;
    const part = Math.floor(channel / exporter.index.channelsPerPage);
    return "layers/" + pages[0] + (part ? "-" + (part + 1) : "") + ".html#c" + channel;
  };
  const named = (layer, channel) => {
    const page = channelPage(layer, channel), text = "channel " + channel;
    if (!page) return element("b", "", text);
    const link = element("a", "", text);
    link.href = page;
    link.dataset.control = "viewer-channel";
    return link;
  };
  const figure = (layer, channel) => {
    const item = element("li"), frame = element("figure"), canvas = element("canvas"), words = element("figcaption");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Channel " + channel.channel + " of " + layer.layer + ", " + exporter.number(channel.lo) + " to " + exporter.number(channel.hi));
    exporter.paint.channel(canvas, channel.levels, layer.height, layer.width, state.colour === "diverging" ? "viridis" : state.colour);
    words.append(named(layer.layer, channel.channel), element("span", "num", exporter.number(channel.lo) + " to " + exporter.number(channel.hi)));
    frame.append(canvas, words);
    item.append(frame);
    return item;
  };
  const activations = () => {
    const room = $("v-acts"), layers = exporter.data.activationsOf(now.shard, exporter.data.rowOf(now.position));
    room.querySelectorAll("canvas").forEach(exporter.paint.release);
    room.replaceChildren();
    const { sheets, images, flags } = exporter.index, without = sheets !== null && !(flags[now.position] & KEPT);
    $("v-acts-section").hidden = !layers.length && !without;
    if (without) room.append(element("p", "muted", "Shown only for the " + sheets.toLocaleString("en") + " of " + exporter.images(images) + " that --keep selects; the run folder has them for every image."));
    for (const layer of layers) {
      const box = element("div", "act"), strip = element("ul", "acts"), head = element("h4");
      head.append(element("code", "", layer.layer));
      const small = layer.height !== layer.fullHeight || layer.width !== layer.fullWidth;
      head.append(element("span", "muted", " " + layer.fullHeight + " × " + layer.fullWidth + " cells" + (small ? ", averaged to " + layer.height + " × " + layer.width : "")));
      for (const drawn of layer.channels.filter((channel) => channel.levels)) strip.append(figure(layer, drawn));
      box.append(head, strip);
      const rest = layer.channels.filter((channel) => !channel.levels);
      if (rest.length) {
        const line = element("p", "rest muted", "Then ");
        rest.forEach((channel, at) => line.append(at ? ", " : "", named(layer.layer, channel.channel), " (" + exporter.number(channel.lo, 2) + " to " + exporter.number(channel.hi, 2) + ")"));
        line.append(".");
        box.append(line);
      }
      room.append(box);
    }
  };
  exporter.beside = { predictions, facts, near, activations, named };
})();
