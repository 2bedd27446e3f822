// Light or dark as chosen, before the first paint. Without this file the system's choice holds.
"use strict";
(() => {
  const names = ["auto", "light", "dark"];
  const root = document.documentElement;
  const recall = () => {
    try { return localStorage.getItem("exporter-theme") || "auto"; } catch { return "auto"; }
  };
  const apply = (name) => {
    if (name === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", name);
  };
  let theme = names.includes(recall()) ? recall() : "auto";
  apply(theme);
  root.classList.add("js");
  document.addEventListener("DOMContentLoaded", () => {
    // The address is the state of some pages: the link moves there without a trace in it.
    document.querySelector("[data-control=skip]").addEventListener("click", (event) => {
      event.preventDefault();
      const main = document.getElementById("main");
      main.focus();
      main.scrollIntoView();
    });
    const button = document.getElementById("theme");
    const say = () => { button.textContent = "Theme: " + theme; };
    button.hidden = false;
    say();
    button.addEventListener("click", () => {
      theme = names[(names.indexOf(theme) + 1) % names.length];
      apply(theme);
      say();
      try { localStorage.setItem("exporter-theme", theme); } catch { /* private windows */ }
    });
  });
})();
