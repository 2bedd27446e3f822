// Keys, swipes on the picture, and the sheet that lists them ("?").
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { now, stage } = exporter;
  const { values: state, write } = exporter.state;
  const OPACITIES = ["0", "50", "100"], COMPARES = ["", "side", "wipe"];
  const FAR = 48;

  const cycle = (list, value) => list[(list.indexOf(value) + 1) % list.length];
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  const inViewer = (event) => {
    const viewer = exporter.viewer, key = event.key;
    if (arrows[key] && event.shiftKey && event.target.classList.contains("frame") && now.current) stage.nudge(arrows[key]);
    else if (event.target.matches("input, select")) return false;
    else if (key === "ArrowLeft") viewer.step(-1);
    else if (key === "ArrowRight") viewer.step(1);
    else if (/^[1-9]$/.test(key)) {
      const method = exporter.index.methods[Number(key) - 1];
      if (!method || !now.current) return false;
      viewer.method(method.name);
    } else if ((key === "[" || key === "]") && now.current) viewer.layer(key === "]" ? 1 : -1);
    else if (key === "o") {
      state.opacity = cycle(OPACITIES, OPACITIES.findLast((step) => Number(step) <= Number(state.opacity)));
      viewer.repaint();
    } else if (key === "b" && exporter.boxes.known()) viewer.boxes();
    else if (key === "u") {
      state.fade = cycle(["", "even"], state.fade || "");
      viewer.repaint();
    } else if (key === "c") {
      state.colour = cycle(Object.keys(exporter.colours), state.colour);
      viewer.repaint();
    } else if (key === "g" && stage.shape()) viewer.geometry(state.geometry === "original" ? "" : "original");
    else if (key === "w" && now.current) viewer.compare(cycle(COMPARES, state.compare || ""));
    else if (key === "x" && stage.comparing()) viewer.swap();
    else if (key === "f") { viewer.full(state.full !== "1"); write(); }
    else return false;
    return true;
  };
  const inPage = (event) => {
    if (event.key !== "/" || event.target.matches("input, select")) return false;
    $("q").focus();
    return true;
  };
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const typing = event.target.matches("input:not([type=range])");
    if (event.key === "?" && !typing) $("help").showModal();
    else if (!($("viewer").open ? inViewer(event) : inPage(event))) return;
    event.preventDefault();
  };

  // A finger's swipe across the picture goes to the image before or after; up and down still scrolls.
  const swipes = () => {
    let from = null;
    const panes = $("panes");
    panes.addEventListener("pointerdown", (event) => {
      from = event.pointerType === "touch" && event.isPrimary && !event.target.closest(".divider") ? { x: event.clientX, y: event.clientY } : null;
    });
    panes.addEventListener("pointerup", (event) => {
      const start = from, zoomed = window.visualViewport && visualViewport.scale > 1.01;
      from = null;
      if (!start || zoomed) return;
      const across = event.clientX - start.x, down = event.clientY - start.y;
      if (Math.abs(across) > FAR && Math.abs(across) > 1.5 * Math.abs(down)) exporter.viewer.step(across < 0 ? 1 : -1);
    });
    panes.addEventListener("pointercancel", () => { from = null; });
  };

  const begin = () => {
    document.addEventListener("keydown", pressed);
    for (const id of ["help-open", "v-help"]) $(id).addEventListener("click", () => $("help").showModal());
    $("help-close").addEventListener("click", () => $("help").close());
    $("help").addEventListener("click", (event) => { if (event.target === $("help")) $("help").close(); });
    swipes();
  };
  exporter.keys = { begin };
})();
