/* Lists with filters: every choice narrows the rows; an address such as #finding=Mass keeps it. */
"use strict";

function fits(row, facet, wanted) {
  return (row.dataset[facet] || "").split("|").includes(wanted);
}

function key(name) {
  return name.replace(/[ -](\w)/g, (_, letter) => letter.toUpperCase()).replace(/^AUROC$/, "auroc");
}

function start(list) {
  const form = list.querySelector("form");
  const rows = [...list.querySelectorAll("tbody tr")];
  const selects = [...form.querySelectorAll("select")];
  const narrow = () => {
    const wanted = selects.filter((s) => s.value).map((s) => [key(s.dataset.facet), s.value]);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !wanted.every(([facet, value]) => fits(row, facet, value));
      shown += row.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${shown} of ${rows.length}`;
  };
  form.addEventListener("change", narrow);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(narrow));
  const [facet, value] = decodeURIComponent(location.hash.slice(1)).split("=");
  for (const select of selects) {
    if (select.dataset.facet === facet && value) select.value = value;
  }
  narrow();
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".xrv-filter").forEach(start);
});
