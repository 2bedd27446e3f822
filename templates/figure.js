// What is taken away from the viewer: the command that draws its view for a paper, and the view as a picture.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { now, stage } = exporter;
  const { values: state } = exporter.state;
  const SCALE = 4;

  const quoted = (text) => /^[\w.,:@%+=/-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
  const unlike = (values) => [...new Set(values)];
  // A report that is opened from its run folder says where that is; elsewhere the run is called RUN.
  const run = () => {
    const inside = location.protocol === "file:" && /^(.*)\/html\/[^/]+$/.exec(decodeURIComponent(location.pathname));
    return inside ? inside[1] : "RUN";
  };
  const command = () => {
    const maps = [now.current, ...(stage.comparing() && now.other ? [now.other] : [])].filter((map) => map && !map.by);
    const parts = ["exporter", "figure", run(), "--image", exporter.index.ids[now.position]];
    if (maps.length) {
      const of = (map) => exporter.index.methods[map.method].name + (exporter.index.layers[map.layer] && "@" + exporter.index.layers[map.layer]);
      parts.push("--maps", unlike(maps.map(of)).join(","));
      parts.push("--target", maps[0].target, "--colormap", state.colour);
      if (state.opacity !== "80") parts.push("--opacity", String(Number(state.opacity) / 100));
      if (state.fade === "even") parts.push("--uniform-opacity");
      if (state.threshold !== "0") parts.push("--threshold", String(Number(state.threshold) / 100));
    }
    return [...parts, "--out", "figure.pdf"].map(quoted).join(" ");
  };

  const picture = () => {
    const [height, width] = exporter.index.view, both = stage.comparing() && now.other;
    const beside = both && state.compare === "side", canvas = document.createElement("canvas");
    canvas.width = SCALE * width * (beside ? 2 : 1);
    canvas.height = SCALE * height;
    const paper = canvas.getContext("2d"), across = SCALE * width, cut = Number(state.wipe) / 100;
    const put = (pane, left, from) => {
      paper.save();
      paper.beginPath();
      paper.rect(left + from * across, 0, (1 - from) * across, canvas.height);
      paper.clip();
      paper.drawImage($(pane + "-img"), left, 0, across, canvas.height);
      paper.globalAlpha = Number(state.opacity) / 100;
      if ($(pane + "-heat").width) paper.drawImage($(pane + "-heat"), left, 0, across, canvas.height);
      paper.restore();
    };
    put("v", 0, 0);
    if (both) put("w", beside ? across : 0, beside ? 0 : cut);
    return canvas;
  };

  const say = (text) => { $("v-taken").textContent = text; };
  const copy = async () => {
    const text = command();
    try {
      await navigator.clipboard.writeText(text);
      say("Copied: " + text);
    } catch {
      say(text);
    }
  };
  const save = () => {
    const name = exporter.index.paths[now.position].split("/").pop().replace(/\.[^.]*$/, "");
    try {
      picture().toBlob((blob) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(blob);
        link.download = name + (now.current && !now.current.by ? "-" + exporter.index.methods[now.current.method].name : "") + ".png";
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
        say("Saved: " + link.download);
      });
    } catch {
      say("Browsers do not let a page read photographs from the disk. Draw it with: " + command().replace("figure.pdf", "figure.png"));
    }
  };
  const begin = () => {
    $("v-figure").addEventListener("click", copy);
    $("v-save").addEventListener("click", save);
  };
  exporter.figure = { begin, forget: () => say("") };
})();
