"use strict";
// Lists are filtered by a word or a choice; tables are sorted by the columns that are marked for it.

for (const input of document.querySelectorAll("[data-filter]")) input.addEventListener("input", show);
for (const select of document.querySelectorAll("[data-choose]")) select.addEventListener("change", show);

function show() {
  const word = document.querySelector("[data-filter]");
  const choice = document.querySelector("[data-choose]");
  const wanted = word.value.trim().toLowerCase();
  for (const entry of document.querySelectorAll(word.dataset.filter)) {
    const named = entry.textContent.toLowerCase().includes(wanted);
    entry.hidden = !named || Boolean(choice && choice.value && entry.dataset.choice !== choice.value);
  }
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("thead th")];
  const marked = table.classList.contains("sites") ? heads.filter((head) => head.classList.contains("sorted")) : heads;
  for (const head of marked) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...(head.textContent.trim() && !head.querySelector("[hidden]") ? head.childNodes : ["Row"]));
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(table, head));
  }
}

function sort(table, head) {
  const at = [...head.parentNode.children].indexOf(head);
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row.children[at]), row]);
  rows.sort(([a], [b]) => (down ? -1 : 1) * compared(a, b) || 0);
  body.append(...rows.map(([, row]) => row));
}

function value(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return Number.isNaN(number) ? (cell.tagName === "TH" ? text : -Infinity) : number;
}

function compared(a, b) {
  if (a === b) return 0;
  return typeof a === "number" && typeof b === "number" ? (a < b ? -1 : 1) : String(a).localeCompare(String(b));
}
