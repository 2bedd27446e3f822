// The images that activate each channel most: they come in a script beside the page, so that a page of
// 256 channels stays light, and their pictures are made as the rows come into sight.
"use strict";
(() => {
  const number = (value) => {
    const size = Math.abs(value);
    const text = value === 0 ? "0" : size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
    return text.replace(/-/g, "−");
  };
  const make = (name, attributes, ...children) => {
    const svg = name === "svg" || name === "circle";
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const picture = (tops, channel, image, value, x, y) => {
    const id = tops.ids[image], at = tops.positions[image];
    const photo = make("img", {
      src: "../photos/" + String(Math.floor(at / 1000)).padStart(2, "0") + "/" + id + ".jpg", loading: "lazy", width: 80, height: 80,
      alt: "Photograph " + tops.names[image] + "; channel " + channel + " of " + tops.layer + " reaches " + number(value) + " in the ring",
    });
    photo.style.transformOrigin = x + "% " + y + "%";
    const ring = make("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, make("circle", { cx: x, cy: y, r: 13 }));
    const link = make("a", { href: "../images.html#image=" + encodeURIComponent(id), "data-control": "top-image" }, make("span", { class: "spot" }, photo, ring));
    return make("li", {}, make("figure", {}, link, make("figcaption", {}, number(value))));
  };

  const begin = (tops) => {
    const rows = [...document.querySelectorAll("table.channels tbody tr")];
    const fill = (row) => {
      const channel = Number(row.id.slice(1)), flat = tops.rows[channel - tops.first] || [], room = row.cells[row.cells.length - 1];
      if (room.firstChild) return;
      const list = make("ul", { class: "tops" });
      for (let i = 0; i < flat.length; i += 4) list.append(picture(tops, channel, flat[i], flat[i + 1], flat[i + 2], flat[i + 3]));
      if (!flat.length) list.append(make("li", { class: "muted" }, "none"));
      room.append(list);
    };
    const look = (rootMargin) => {
      const watch = new IntersectionObserver((seen) => {
        for (const entry of seen) if (entry.isIntersecting) { watch.unobserve(entry.target); fill(entry.target); }
      }, { rootMargin });
      for (const row of rows) watch.observe(row);
    };
    // What is out of sight waits until the page is there.
    look("0px");
    const rest = () => setTimeout(look, 200, "800px");
    if (document.readyState === "complete") rest(); else addEventListener("load", rest);
    addEventListener("beforeprint", () => rows.forEach(fill));
  };
  window.exporterTops = begin;

  document.addEventListener("DOMContentLoaded", () => {
    const tools = document.getElementById("channel-tools");
    if (!tools) return;
    tools.hidden = false;
    const close = document.getElementById("close-up");
    close.addEventListener("click", () => {
      const on = close.getAttribute("aria-pressed") !== "true";
      close.setAttribute("aria-pressed", String(on));
      document.querySelector("table.channels").classList.toggle("near", on);
    });
    const go = document.getElementById("go"), said = document.getElementById("go-said");
    go.addEventListener("change", () => {
      const wanted = go.value === "" ? -1 : Number(go.value), each = Number(go.dataset.each), part = Math.floor(wanted / each);
      const known = Number.isInteger(wanted) && wanted >= 0 && wanted <= Number(go.max);
      said.textContent = known || go.value === "" ? "" : "Channels are 0 to " + go.max + ".";
      if (known) location.href = go.dataset.layer + (part ? "-" + (part + 1) : "") + ".html#c" + wanted;
    });
  });
})();
