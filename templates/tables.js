// Tables that sort by a click on a column's head, and the search boxes over tables.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  // A number as it is written: with a true minus sign, thousands apart, perhaps in percent.
  const read = (text) => text.trim() === "" || text.trim() === "—" ? -Infinity : parseFloat(text.replace("−", "-").replace(/e−/, "e-").replace(/,/g, ""));
  for (const table of document.querySelectorAll("table.sortable")) {
    // Long tables have several bodies, of which those out of sight are not laid out.
    let bodies = null, original = null;
    const begin = () => {
      bodies = [...table.tBodies].map((body) => [body, body.rows.length]);
      original = bodies.flatMap(([body]) => [...body.rows]);
    };
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.dataset.kind === "none") return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sorter";
      button.dataset.control = "sort-column";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      const key = (row) => {
        const cell = row.cells[column];
        return head.dataset.kind === "number" ? Number(cell.dataset.value ?? read(cell.textContent)) : cell.textContent.trim();
      };
      button.addEventListener("click", () => {
        if (!original) begin();
        const now = head.getAttribute("aria-sort");
        const first = head.dataset.kind === "number" ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const wanted = now === first ? second : now === second && head.dataset.kind !== "order" ? "" : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        let rows = [...original];
        if (wanted) {
          head.setAttribute("aria-sort", wanted);
          const sign = wanted === "ascending" ? 1 : -1;
          if (head.dataset.kind === "order") { if (sign < 0) rows.reverse(); }
          else if (head.dataset.kind === "number") rows.sort((a, b) => sign * (key(a) - key(b)));
          else rows.sort((a, b) => sign * key(a).localeCompare(key(b), undefined, { numeric: true }));
        }
        let from = 0;
        for (const [body, size] of bodies) body.append(...rows.slice(from, from += size));
      });
    });
  }
  for (const find of document.querySelectorAll("input[data-table]")) {
    find.closest("p").hidden = false;
    const table = document.getElementById(find.dataset.table);
    const out = find.parentNode.querySelector("output");
    let rows = null;
    const filter = () => {
      rows ??= [...table.tBodies].flatMap((body) => [...body.rows]);
      const text = find.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = text !== "" && !row.textContent.toLowerCase().includes(text);
        if (!row.hidden) shown++;
      }
      table.classList.toggle("found", text !== "");
      out.textContent = text ? shown + " of " + rows.length + " " + (find.dataset.noun || "layers") : "";
    };
    find.addEventListener("input", filter);
    if (find.value) filter();
  }
});
