// Draws the page's figures when they come into sight, and sorts and filters its table.
// It asks nothing of any network, and makes no HTML out of text.
"use strict";

const styles = getComputedStyle(document.documentElement);

// Figures name CSS variables, plotly wants colours: put today's values in.
function coloured(value) {
  if (typeof value === "string") {
    const name = /^var\((--[\w-]+)\)$/.exec(value);
    return name ? styles.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part)]));
  }
  return value;
}

function themed(layout) {
  const paper = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "var(--ink)" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--line)", activecolor: "var(--muted)" },
    hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
  };
  const result = { ...layout, ...paper };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    result[axis] = { gridcolor: "var(--line)", linecolor: "var(--line)", ...layout[axis] };
  }
  return coloured(result);
}

function draw(place) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  const settings = { responsive: true, displaylogo: false, displayModeBar: "hover" };
  // NOTE: among plotly's own buttons is one that sends the figure away to share it.
  settings.modeBarButtons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  Plotly.react(place, coloured(figure.data), themed(figure.layout), settings);
  place.dataset.drawn = "yes";
}

function drawIn(part) {
  for (const place of part.querySelectorAll(".plot:not([data-drawn])")) {
    const closed = place.closest("details:not([open])");
    if (!closed) draw(place);
  }
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named && named.tagName === "DETAILS") {
    named.open = true;
    named.scrollIntoView();
  }
}

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(a, b) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function sortBy(head) {
  const table = head.closest("table");
  const falling = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const column = Number(head.dataset.column);
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => (falling ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column)));
  table.tBodies[0].append(...rows);
}

function filter(words) {
  const wanted = words.trim().toLowerCase();
  for (const part of document.querySelectorAll("[data-user]")) {
    part.hidden = !part.dataset.user.toLowerCase().includes(wanted);
  }
}

for (const part of document.querySelectorAll("details")) {
  part.addEventListener("toggle", () => part.open && drawIn(part));
}
for (const head of document.querySelectorAll("th[data-column]")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}
document.getElementById("filter")?.addEventListener("input", (event) => filter(event.target.value));
window.addEventListener("hashchange", openNamed);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const place of document.querySelectorAll(".plot[data-drawn]")) draw(place);
});
window.addEventListener("beforeprint", () => drawIn(document));
openNamed();
drawIn(document);
