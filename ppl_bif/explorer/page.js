"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const values = new Int16Array(bytes(data.values).buffer);
const errors = bytes(data.errors);
const LISTED = 40;
const other = { train: "query", query: "train" };
const sides = { train: lay("train"), query: lay("query") };
const size = sides.train.units;
let picked = null;   // {side, unit}
let shown = null;    // {value, error, resolved} of the other side, by unit

// The first unit of each row, and the row of each unit.
function lay(name) {
  const rows = data[name];
  const first = [];
  let units = 0;
  for (const row of rows) { first.push(units); units += row.units; }
  const rowOf = new Uint32Array(units);
  rows.forEach((row, r) => rowOf.fill(r, first[r], first[r] + row.units));
  return { name, rows, first, rowOf, units, boxes: [] };
}

function pair(q, t) {
  const at = q * size + t, mark = errors[at];
  return [values[at] / 32767 * data.largest[q], (mark & 127) / 127 * data.widest[q], mark >> 7];
}

function word(side, unit) {
  const r = side.rowOf[unit], row = side.rows[r], i = unit - side.first[r];
  return row.text === undefined ? row.label || row.id : row.text.slice(row.starts[i], row.stops[i]);
}

function number(value, error) {
  const digits = Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(error || Math.abs(value) || 1))));
  const power = Math.abs(value) + error < 1e-4 && value !== 0;
  const text = power ? value.toExponential(2) : value.toFixed(digits);
  const sign = value > 0 ? "+" : "";
  return sign + text.replace("-", "\u2212") + " \u00b1 " + (power ? error.toExponential(1) : error.toFixed(digits));
}

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Rows are filled with their tokens only when they come into view.
function build(side) {
  const holder = $(side.name);
  if (side.rows.some((row) => row.picture)) holder.classList.add("pictures");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fill(side, Number(entry.target.dataset.row));
  }, { rootMargin: "600px" });
  side.rows.forEach((row, r) => {
    const box = element("article", "row");
    box.dataset.row = r;
    box.append(element("h3", "", row.id));
    const list = element("div", row.text === undefined ? "" : "text");
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", (row.text === undefined ? "" : "tokens of ") + row.id);
    if (row.text !== undefined) list.textContent = row.text;
    box.append(list);
    side.boxes.push({ box, list, filled: false });
    holder.append(box);
    seen.observe(box);
  });
}

function fill(side, r) {
  const at = side.boxes[r], row = side.rows[r];
  if (at.filled) return;
  at.filled = true;
  const parts = [];
  let end = 0;
  for (let i = 0; i < row.units; i++) {
    const unit = element("span", row.text === undefined ? "picture" : "");
    if (row.text === undefined) {
      if (row.picture) { const image = element("img"); image.src = row.picture; image.alt = row.label || row.id; unit.append(image); }
      unit.append(element("span", "", row.label || row.id));
    } else {
      if (row.starts[i] > end) parts.push(document.createTextNode(row.text.slice(end, row.starts[i])));
      const from = Math.max(end, row.starts[i]);
      unit.textContent = row.text.slice(from, row.stops[i]);
      end = Math.max(end, row.stops[i]);
    }
    unit.dataset.unit = side.first[r] + i;
    unit.setAttribute("role", "option");
    unit.setAttribute("aria-selected", "false");
    unit.tabIndex = i ? -1 : 0;
    parts.push(unit);
  }
  if (row.text !== undefined && end < row.text.length) parts.push(document.createTextNode(row.text.slice(end)));
  at.list.replaceChildren(...parts);
  paint(side, r);
}

function node(side, unit) {
  const r = side.rowOf[unit];
  fill(side, r);
  return side.boxes[r].list.querySelector('[data-unit="' + unit + '"]');
}

function paint(side, r) {
  const at = side.boxes[r];
  if (!at.filled) return;
  const colours = picked && other[picked.side] === side.name;
  for (const unit of at.list.querySelectorAll("[data-unit]")) {
    const u = Number(unit.dataset.unit);
    const value = colours && passes(u) ? shown.value[u] : 0;
    unit.style.setProperty("--strength", Math.min(1, Math.abs(value) / (shown ? shown.scale : 1)).toFixed(3));
    unit.classList.toggle("lowers", value < 0);
    unit.classList.toggle("unresolved", Boolean(colours) && !shown.resolved[u]);
    const mine = Boolean(picked) && picked.side === side.name && picked.unit === u;
    unit.classList.toggle("picked", mine);
    unit.setAttribute("aria-selected", String(mine));
  }
}

function passes(u) {
  const value = shown.value[u], sign = Number($("sign").value);
  return (!sign || Math.sign(value) === sign) && Math.abs(value) >= shown.least && (!$("only").checked || shown.resolved[u]);
}

function choose(name, unit) {
  const against = sides[other[name]], n = against.units;
  shown = { value: new Float64Array(n), error: new Float64Array(n), resolved: new Uint8Array(n) };
  for (let u = 0; u < n; u++)
    [shown.value[u], shown.error[u], shown.resolved[u]] = name === "query" ? pair(unit, u) : pair(u, unit);
  const sizes = Float64Array.from(shown.value, Math.abs).sort();
  shown.largest = sizes[n - 1] || 0;
  // Colours are full at the 99.5% quantile, so that one outlier does not pale all others.
  shown.scale = sizes[Math.floor(.995 * (n - 1))] || shown.largest || 1;
  picked = { side: name, unit };
  refresh();
}

function refresh() {
  if (!picked) { filterRows(); return; }
  shown.least = Number($("least").value) / 100 * shown.largest;
  $("least-value").textContent = shown.least.toPrecision(2);
  filterRows();
  for (const side of Object.values(sides)) side.rows.forEach((_, r) => paint(side, r));
  list();
}

function filterRows() {
  const wanted = $("find").value.toLowerCase();
  const side = sides[picked ? other[picked.side] : "train"];
  for (const one of Object.values(sides))
    one.rows.forEach((row, r) => one.boxes[r].box.classList.toggle("out", one === side && !row.id.toLowerCase().includes(wanted)));
}

function list() {
  const side = sides[other[picked.side]], mine = sides[picked.side], wanted = $("find").value.toLowerCase();
  const inside = side.rows.map((row) => row.id.toLowerCase().includes(wanted));
  const found = [];
  let resolved = 0;
  for (let u = 0; u < side.units; u++)
    if (inside[side.rowOf[u]] && passes(u)) { found.push(u); resolved += shown.resolved[u]; }
  found.sort((a, b) => Math.abs(shown.value[b]) - Math.abs(shown.value[a]));
  const word1 = word(mine, picked.unit).trim() || "blank";
  $("chosen").textContent = "\u201c" + word1 + "\u201d in " + mine.rows[mine.rowOf[picked.unit]].id + ": " +
    resolved.toLocaleString("en") + " of " + found.length.toLocaleString("en") + " shown are resolved from zero (5% of them falsely).";
  $("list-name").textContent = picked.side === "query" ? "Strongest sources" : "Strongest effects";
  $("list").replaceChildren(...found.slice(0, LISTED).map((u) => {
    const value = shown.value[u], item = element("li"), link = element("a", !shown.resolved[u] ? "faint" : value > 0 ? "high" : "low");
    link.href = "#" + side.name + "-" + u;
    link.dataset.target = u;
    link.append(element("span", "what", word(side, u).trim() || "\u2423"));
    link.append(element("span", "num", number(value, shown.error[u])));
    link.append(element("span", "where", side.rows[side.rowOf[u]].id + (shown.resolved[u] ? "" : ", not resolved")));
    item.append(link);
    return item;
  }));
}

function hint(event) {
  const unit = event.target.closest && event.target.closest("[data-unit]"), box = $("hint");
  if (!unit) { box.hidden = true; return; }
  const name = unit.closest(".side").id, side = sides[name], u = Number(unit.dataset.unit);
  let text = word(side, u).trim() || "blank";
  if (picked && other[picked.side] === name)
    text += ": " + number(shown.value[u], shown.error[u]) + (shown.resolved[u] ? "" : ", not resolved");
  box.textContent = text;
  box.hidden = false;
  const rect = unit.getBoundingClientRect();
  box.style.left = Math.max(4, Math.min(rect.left, innerWidth - box.offsetWidth - 8)) + "px";
  box.style.top = Math.min(rect.bottom + 6, innerHeight - box.offsetHeight - 4) + "px";
}

function move(event) {
  const unit = event.target.closest("[data-unit]");
  if (!unit) return;
  const side = sides[unit.closest(".side").id], u = Number(unit.dataset.unit);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key === "Enter" || event.key === " ") { choose(side.name, u); event.preventDefault(); return; }
  if (!(event.key in steps)) return;
  const next = u + steps[event.key];
  if (next < 0 || next >= side.units) return;
  unit.tabIndex = -1;
  const to = node(side, next);
  to.tabIndex = 0;
  to.focus();
  event.preventDefault();
}

function follow(event) {
  const link = event.target.closest("a[data-target]");
  if (!link) return;
  event.preventDefault();
  const to = node(sides[other[picked.side]], Number(link.dataset.target));
  to.tabIndex = 0;
  to.scrollIntoView({ block: "center" });
  to.focus();
}

$("title").textContent = data.title;
document.title = data.title;
$("about").textContent = (data.kind === "correlation" ? "Correlations" : "Influences, nats") + " \u00b7 " + data.about +
  (data.left_out ? " \u00b7 " + data.left_out.toLocaleString("en") + " more query rows are not on this page" : "");
build(sides.query);
build(sides.train);
for (const name of ["query", "train"]) {
  $(name).addEventListener("click", (event) => {
    const unit = event.target.closest("[data-unit]");
    if (unit) choose(name, Number(unit.dataset.unit));
  });
  $(name).addEventListener("keydown", move);
  $(name).addEventListener("mouseover", hint);
  $(name).addEventListener("focusin", hint);
}
document.addEventListener("scroll", () => { $("hint").hidden = true; }, true);
$("list").addEventListener("click", follow);
$("filters").addEventListener("input", refresh);
$("filters").addEventListener("submit", (event) => event.preventDefault());
