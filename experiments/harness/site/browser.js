"use strict";
// The feature browser. Data come as scripts, since a page that is opened from a folder may not read files: sets.js calls
// facSets, SET/list.js facList, SET/CHUNK.js facChunk. Texts are only ever set as text.

const [ID, SAID, VERDICT, RELEVANCE, ANCHOR, SEED, MAX, STATUS, SPAN, ANY, OWN] = Array(11).keys();
const STATES = ["not relevant or silent", "relevant, in the seed data", "missing in the seed data"];
const AT_ONCE = 50;
const $ = (id) => document.getElementById(id);
const lists = [], chunks = {}, waiting = {};
let sets = [], at = 0, shown = AT_ONCE, down = true, found = [];

function facSets(told) {
  sets = told;
  sets.forEach((set, i) => $("set").append(option(i, `${set.title} (${set.n.toLocaleString("en")} features)`)));
}
function facList(i, told) { lists[i] = told; }
function facChunk(i, chunk, told) { chunks[`${i}/${chunk}`] = told; }

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function rounded(g) { return g.toFixed(Math.abs(g) < 100 ? 2 : 0); }

function load(file, then) { // once; several may wait for it
  if (waiting[file] === "done") return then();
  if (waiting[file]) return waiting[file].push(then);
  waiting[file] = [then];
  const script = document.createElement("script");
  script.src = `features/${file}`;
  script.onload = () => { const all = waiting[file]; waiting[file] = "done"; all.forEach((one) => one()); };
  script.onerror = () => { delete waiting[file]; $("count").textContent = `features/${file} is not in this folder: run fac report again.`; };
  document.head.append(script);
}

function choose(i, then) {
  at = i;
  $("set").value = i;
  $("count").textContent = "Loading …";
  load(`${i}/list.js`, () => {
    const list = lists[i];
    fill("relevance", list.rows, RELEVANCE);
    fill("verdict", list.rows, VERDICT);
    $("method").replaceChildren(option("", "any"), ...list.methods.map((name, m) => option(m, name)));
    $("warning").hidden = !list.warning;
    $("warning").textContent = list.warning;
    $("status").value = list.rows.some((row) => row[STATUS] === 2) ? "2" : ""; // what is missing comes first
    list.texts = list.rows.map((row) => `${row[ID]} ${row[SAID]} ${row[SPAN]}`.toLowerCase());
    update();
    if (then) then();
  });
}

function fill(id, rows, column) { // the words that occur, in their order
  const words = ["Yes", "Probably", "Maybe", "No", ""].filter((word) => rows.some((row) => row[column] === word));
  $(id).replaceChildren(option("all", "all"), ...words.map((word) => option(word, word || "no verdict")));
  $(id).parentNode.hidden = words.length < 2;
}

const KEYS = {
  id: (row) => row[ID],
  max: (row) => row[MAX],
  anchor: (row) => row[ANCHOR],
  seed: (row) => row[SEED],
  covered: (row) => counted(row).filter((n) => n > 0).length,
  texts: (row) => counted(row).reduce((sum, n) => sum + n, 0),
};

function counted(row) { // added texts that activate it, of the methods that are looked at
  return $("method").value === "" ? row[ANY] : [row[ANY][$("method").value]];
}

function update() {
  const list = lists[at];
  if (!list) return;
  const wanted = $("search").value.trim().toLowerCase(), key = KEYS[$("sort").value];
  const [relevance, verdict, status, covered] = ["relevance", "verdict", "status", "covered"].map((id) => $(id).value);
  const named = (row, i) => (/^#\d+$/.test(wanted) ? row[ID] === Number(wanted.slice(1)) : list.texts[i].includes(wanted));
  found = list.rows.filter((row, i) =>
    named(row, i) &&
    (relevance === "all" || row[RELEVANCE] === relevance) &&
    (verdict === "all" || row[VERDICT] === verdict) &&
    (status === "" || row[STATUS] === Number(status)) &&
    (covered === "" || counted(row).some((n) => n > 0) === (covered === "yes")));
  found.sort((a, b) => (down ? key(b) - key(a) : key(a) - key(b)) || a[ID] - b[ID]);
  shown = AT_ONCE;
  $("list").replaceChildren();
  draw();
}

function draw() {
  const list = $("list");
  for (const row of found.slice(list.children.length, shown)) list.append(entry(row));
  const all = lists[at].rows.length.toLocaleString("en");
  $("count").textContent = `${found.length.toLocaleString("en")} of ${all} features, active above ${lists[at].threshold}`;
  $("more").hidden = shown >= found.length;
}

function entry(row) {
  const made = make("article", "entry"), button = make("button", "opener");
  made.id = `feature-${row[ID]}`;
  made.dataset.feature = row[ID];
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.append(make("span", "said", `${row[ID]}  ${row[SAID] || "not explained"}`));
  const covering = row[ANY].filter((n) => n > 0).length;
  const facts = [
    `relevant: ${row[RELEVANCE] || "no verdict"}`, ...(row[VERDICT] ? [`explanation fits: ${row[VERDICT]}`] : []),
    STATES[row[STATUS]], `g up to ${rounded(row[MAX])}`, `texts: ${row[ANCHOR].toLocaleString("en")} anchor, ${row[SEED].toLocaleString("en")} seed`,
    ...(row[ANY].length ? [`covered by ${covering} of ${row[ANY].length} methods`] : []),
  ];
  button.append(make("span", "meta", facts.join(" · ")));
  if (row[SPAN]) button.append(make("span", "meta", `“${row[SPAN]}”`));
  button.addEventListener("click", () => open(made, row));
  made.append(button);
  return made;
}

function open(made, row) {
  const there = made.querySelector(".detail");
  made.firstChild.setAttribute("aria-expanded", String(!there));
  if (there) return there.remove();
  const chunk = Math.floor(lists[at].rows.indexOf(row) / lists[at].chunk), file = `${at}/${chunk}`;
  load(`${file}.js`, () => made.querySelector(".detail") || made.append(detail(row, chunks[file][row[ID]])));
}

function marked(parent, text, start, end) {
  parent.append(text.slice(0, start));
  if (end > start) parent.append(make("mark", "", text.slice(start, end)));
  parent.append(text.slice(end));
  return parent;
}

function detail(row, told) {
  const box = make("div", "detail"), list = lists[at];
  box.append(make("h4", "", "Where it is strongest on the anchor"));
  const spans = make("ul", "spans");
  for (const [text, start, g] of told.spans) {
    const item = make("li");
    item.append(make("span", "g", rounded(g)), marked(make("q"), text, start, text.length));
    spans.append(item);
  }
  box.append(spans);
  if (list.methods.length) {
    box.append(make("h4", "", "Added texts that activate it, by method"));
    const pairs = make("dl", "pairs");
    list.methods.forEach((name, m) => {
      const line = make("div"), own = row[OWN][m];
      line.append(make("dt", "", name), make("dd", "", `${row[ANY][m]}${own === null ? "" : `, of them ${own} written for it`}`));
      pairs.append(line);
    });
    box.append(pairs);
  }
  for (const [model, feature, r] of told.matches) {
    const line = make("p", "meta"), other = sets.findIndex((set) => set.model === model && set.task === sets[at].task);
    line.append(`In ${model} it is feature `, other < 0 ? String(feature) : link(other, feature), ` (r ${r.toFixed(2)} over the same texts).`);
    box.append(line);
  }
  const any = told.samples.some((samples) => samples.length);
  if (any) box.append(make("h4", "", "Samples written for it"));
  told.samples.forEach((samples, m) => samples.forEach(([text, span, g, kept, why, step]) => {
    const value = g === null ? "" : ` · g ${rounded(g)}`;
    box.append(make("p", "meta", `${list.methods[m]} · step ${step}${value} · ${kept ? "kept" : `not kept: ${why}`}`));
    const start = span ? text.indexOf(span) : -1;
    box.append(marked(make("p", "text"), text, Math.max(start, 0), start < 0 ? 0 : start + span.length));
  }));
  return box;
}

function link(set, feature) {
  const made = make("a", "", String(feature));
  made.href = `#${set}/${feature}`;
  return made;
}

function follow() { // #SET/FEATURE
  const [set, feature] = location.hash.slice(1).split("/").map(Number);
  const i = sets[set] ? set : 0;
  choose(i, () => {
    const row = feature === undefined ? undefined : lists[i].rows.find((one) => one[ID] === feature);
    if (!row) return;
    $("search").value = `#${feature}`;
    $("status").value = "";
    update();
    const made = $(`feature-${feature}`);
    if (made) { open(made, row); made.scrollIntoView(); }
  });
}

if ($("set")) {
  for (const id of ["sort", "relevance", "verdict", "status", "method", "covered"]) $(id).addEventListener("change", update);
  $("search").addEventListener("input", update);
  $("turn").addEventListener("click", () => { down = !down; $("turn").textContent = down ? "↓" : "↑"; update(); });
  $("set").addEventListener("change", () => choose(Number($("set").value)));
  $("more").addEventListener("click", () => { shown += AT_ONCE; draw(); });
  addEventListener("hashchange", follow);
  load("sets.js", follow);
}
