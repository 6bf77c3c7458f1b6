"use strict";
(() => {
  const table = document.getElementById("plan");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const find = document.getElementById("find");
  const scheme = document.getElementById("scheme");
  const count = document.getElementById("count");

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (scheme.value !== "" && row.dataset.scheme !== scheme.value)
        || !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    count.value = `${shown} of ${rows.length} layers`;
  };

  const compare = (column, descending) => (a, b) => {
    const [left, right] = [a.cells[column], b.cells[column]];
    if (left.dataset.key === undefined) {
      const order = left.textContent.localeCompare(right.textContent, "en", { numeric: true });
      return descending ? -order : order;
    }
    // What has no figure comes last either way.
    const [x, y] = [left.dataset.key, right.dataset.key];
    if (x === "" || y === "") return (x === "") - (y === "");
    if (Number(x) === Number(y)) return 0;
    return (Number(x) < Number(y)) === descending ? 1 : -1;
  };

  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...rows.sort(compare(column, descending)));
    });
  });
  headers[0].setAttribute("aria-sort", "ascending");

  find.addEventListener("input", filter);
  scheme.addEventListener("change", filter);
  document.querySelector(".filter").hidden = false;
  filter();
})();
