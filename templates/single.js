// The report as one file: its pages are sections, of which one is shown; maps and photographs are
// in the file. Stands after data.js, before the shards and the index.
"use strict";
(() => {
  const shards = new Map(), photographs = new Map();
  window.exporterShard = (number, shard) => { shards.set(number, shard); };
  exporter.data.load = (number) => shards.has(number) ? Promise.resolve(shards.get(number)) : Promise.reject(new Error("shard " + number + " is not in this file"));
  for (const image of document.querySelectorAll("img[data-photo][src]")) photographs.set(image.dataset.photo, image.src);
  // A comparison has no list: its photographs come in a script.
  for (const [id, address] of Object.entries(window.exporterPhotographs || {})) photographs.set(id, address);
  exporter.data.photo = (position) => photographs.get(exporter.index.ids[position]) || "";

  const sheets = [...document.querySelectorAll(".leaf")];
  const images = document.getElementById("page-images");
  let shown = null;

  // An address with "=" is the state of the images page; any other names a section, or a place in one.
  const wanted = () => {
    let name = location.hash.slice(1);
    if (name.includes("=")) return [images, null];
    try { name = decodeURIComponent(name); } catch { /* as it is */ }
    const place = name && document.getElementById(name);
    const sheet = place && place.closest(".leaf");
    return sheet ? [sheet, place] : [shown || sheets[0], null];
  };
  const show = () => {
    const [sheet, place] = wanted();
    const turned = sheet !== shown;
    if (turned) {
      shown = sheet;
      for (const other of sheets) other.classList.toggle("turned-to", other === sheet);
      for (const image of sheet.querySelectorAll("img[data-photo]:not([src])")) image.src = photographs.get(image.dataset.photo) || "";
      document.body.className = "single page-" + sheet.dataset.page;
      document.title = sheet.dataset.title;
      for (const link of document.querySelectorAll(".top nav a")) {
        const leads = document.getElementById(link.hash.slice(1));
        if (leads && leads.dataset.page === sheet.dataset.page) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
    }
    if (place && place !== sheet) place.scrollIntoView();
    else if (turned) scrollTo({ top: 0, behavior: "instant" });
  };

  // The images page keeps its state in the address: only while it is the one that is shown.
  const replace = history.replaceState.bind(history);
  history.replaceState = (state, title, address) => {
    if (shown === images) replace(state, title, String(address).startsWith("#") ? address : "#page-images");
  };
  // Links that scripts make name the pages of the folder.
  const inside = (address) => {
    const [file, place] = address.split("#");
    const name = "page-" + file.replace(/\.html$/, "").replaceAll("/", "-");
    return document.getElementById(place ? name + "-" + place : name) ? name + (place ? "-" + place : "") : null;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a");
    if (link && /^[\w./-]+\.html/.test(link.getAttribute("href"))) {
      event.preventDefault();
      const place = inside(link.getAttribute("href"));
      if (place) location.hash = place;
    }
    // Browsers refuse to open an image in the address bar; they save it.
    if (link && link.protocol === "data:") link.download = "photograph.jpg";
  });
  // Before the images page reads the address, so that it is measured while it is in sight.
  addEventListener("hashchange", show, { capture: true });
  show();
})();
