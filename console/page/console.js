"use strict";
// Shows /console/api/state, asked for every two seconds. Text from outside is always set as text, never as markup.

const chosen = {}; // model -> id of the verdict that is shown; the newest when unset

function el(tag, attrs, ...children) {
  const svg = ["svg", "rect", "line", "text", "title"].includes(tag);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (k === "onclick") e.addEventListener("click", v);
    else e.setAttribute(k, v);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return e;
}
const num = (x, d = 3) => (x === null || x === undefined ? "–" : Number(x).toLocaleString("en", { maximumFractionDigits: d }));
const time = (ms) => (ms ? new Date(ms).toISOString().slice(0, 16).replace("T", " ") : "–");
const short = (digest) => (digest ? digest.replace("sha256:", "").slice(0, 12) : "–");

function table(head, rows) {
  return el("table", {},
    el("thead", {}, el("tr", {}, ...head.map(([h, n]) => el("th", n ? { class: "n", scope: "col" } : { scope: "col" }, h)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map((c, i) => el("td", head[i][1] ? { class: "n" } : {}, c))))));
}

function stages(list) {
  if (!list || !list.length) return el("p", { class: "soft" }, "No stage has joined its consumer group yet.");
  return table([["stage"], ["state"], ["members", 1], ["partitions", 1], ["lag (records)", 1]], list.map((s) => [
    s.group,
    el("span", { class: s.members ? "ok" : "bad" }, s.members ? s.state : s.state + ": nobody reads"),
    s.members, (s.partitions || []).length,
    el("span", { class: s.lag > 100000 ? "warn" : "" }, num(s.lag, 0)),
  ]));
}

const stateClass = { ok: "ok", suspected: "warn", confirmed: "bad", insufficient: "soft" };

function histogram(column) {
  const w = 250, h = 70, live = column.live || [], base = column.baseline || [];
  const n = Math.max(live.length, base.length);
  if (!n) return el("p", { class: "soft" }, "no bins with this verdict");
  const top = Math.max(...live.map((b) => b.share), ...base.map((b) => b.share), 1e-9);
  const step = w / n, bars = [];
  for (let i = 0; i < n; i++) {
    for (const [bins, cls, off] of [[base, "base", 0], [live, "live", 0.45]]) {
      const b = bins[i];
      if (!b) continue;
      const height = (b.share / top) * h;
      bars.push(el("rect", { class: cls, x: i * step + off * step, y: h - height, width: step * 0.42, height },
        el("title", {}, `${cls === "base" ? "baseline" : "live"} [${num(b.low)}, ${num(b.high)}): ${num(b.share * 100, 1)} %`)));
    }
  }
  return el("svg", { viewBox: `0 0 ${w} ${h}`, width: "100%", height: h, role: "img", "aria-label": `${column.column}: baseline and live shares by bin` }, ...bars);
}

function verdicts(m) {
  const windows = (m.verdicts || []).filter((v) => v.kind === "window_closed");
  if (!windows.length) return [el("p", { class: "soft" }, "No window has been judged yet.")];
  const shown = windows.find((v) => v.id === chosen[m.name]) || windows[windows.length - 1];
  const told = (m.performance || {})[shown.id];
  const buttons = windows.map((v) => el("button", {
    class: stateClass[v.state] || "soft", "aria-pressed": v.id === shown.id, title: `${time(v.window_start)} – ${v.state}`,
    "aria-label": `window from ${time(v.window_start)}: ${v.state}`, onclick: () => { chosen[m.name] = v.id; refresh(); },
  }));
  const columns = [...(shown.columns || [])].sort((a, b) => b.value / (b.threshold || 1) - a.value / (a.threshold || 1));
  return [
    el("div", { class: "windows" }, ...buttons),
    el("p", {}, el("span", { class: "pill " + (stateClass[shown.state] || "soft") }, shown.state), ` ${time(shown.window_start)} to ${time(shown.window_end)}: `,
      `${num(shown.rows, 0)} predictions, PSI of the score ${num(shown.prediction_psi)} (threshold ${num(shown.prediction_threshold)}). ${shown.reason || ""}`),
    told ? el("p", {}, el("span", { class: "pill " + (stateClass[told.state] || "soft") }, told.state), ` ${num(told.labels, 0)} labels: ${told.text}`)
      : el("p", { class: "soft" }, "The labels of this window have not come yet."),
    el("p", { class: "soft legend" }, el("i", { style: "background:var(--base)" }), "baseline", el("i", { style: "background:var(--live)" }), "live"),
    el("div", { class: "columns" }, ...columns.slice(0, 12).map((c) => el("figure", {}, histogram(c),
      el("figcaption", {}, el("span", {}, c.column), el("span", { class: stateClass[c.state] || "" }, `PSI ${num(c.value)} / ${num(c.threshold)}`))))),
    columns.length > 12 ? el("p", { class: "soft" }, `and ${columns.length - 12} columns nearer to their baseline`) : null,
  ];
}

function tree(node, root) {
  const m = node.manifest;
  return el("ul", { class: root ? "tree root" : "tree" }, el("li", {}, `${m.kind} `, el("code", { title: node.digest }, short(node.digest)),
    m.rows ? ` ${num(m.rows, 0)} rows` : "", ...(node.next || []).map((n) => tree(n))));
}

function model(m) {
  const promoted = (m.events || []).filter((e) => e.digest === m.champion && e.kind === "promoted").pop();
  const parts = [el("h3", {}, m.champion ? `${m.name}@${m.version} ` : `${m.name}: no champion yet `, el("code", { title: m.champion }, short(m.champion)))];
  if (promoted) {
    parts.push(el("p", {}, "Held-out: " + Object.entries(promoted.metrics || {}).sort().map(([k, v]) => `${k} ${num(v, 4)}`).join(", ") +
      `. Trained on data from ${time(promoted.data_from)} to ${time(promoted.data_until)}.`));
  }
  parts.push(...verdicts(m));
  if (m.lineage) parts.push(el("details", { "data-key": m.name + "-lineage" }, el("summary", {}, "Lineage"), tree(m.lineage, true)));
  const history = [...(m.history || [])].reverse();
  parts.push(el("details", { "data-key": m.name + "-history" }, el("summary", {}, `History (${history.length})`),
    table([["when"], ["what"], ["digest"], ["note"]], history.map((e) => [time(e.at), e.kind + (e.alias ? " " + e.alias : "") + (e.version ? " @" + e.version : ""), el("code", {}, short(e.digest)), e.note || ""]))));
  return el("div", {}, ...parts);
}

function letters(d) {
  if (!d.count) return el("p", { class: "soft" }, "None.");
  return el("div", {}, el("p", {}, `${num(d.count, 0)} in all: ` + Object.entries(d.by_class).map(([k, v]) => `${v} ${k}`).join(", ")),
    table([["from"], ["stage"], ["class"], ["reason"]], [...(d.newest || [])].reverse().slice(0, 15).map((l) => [
      el("code", {}, `${l.topic}/${l.partition}/${l.offset}`), l.stage, l.class, l.reason])));
}

function latest(p) {
  if (!p) return el("p", { class: "soft" }, "None since this page's server started.");
  const value = (i) => (i.value === null ? i.status : num(i.value, 3));
  return el("div", {},
    el("p", {}, el("code", {}, p.join_key), ` as of ${time(p.at)}: `, el("b", {}, p.refused ? "refused" : num(p.score, 4)), ` by ${p.model}@${p.version}, rung ${p.rung}${p.reason ? " (" + p.reason + ")" : ""}`),
    el("p", {}, `Reasons (${p.reason_method || "none"}): ` + (p.reasons || []).map((r) => `${r.input} ${r.value > 0 ? "+" : ""}${num(r.value)}`).join(", ")),
    el("details", { "data-key": "latest-inputs" }, el("summary", {}, `${(p.inputs || []).length} inputs`), table([["input"], ["value", 1], ["status"], ["newest event"]],
      (p.inputs || []).map((i) => [i.name, value(i), i.status, time(i.event_time)]))));
}

function put(id, ...nodes) {
  const box = document.getElementById(id);
  const open = new Set([...box.querySelectorAll("details[open]")].map((d) => d.dataset.key));
  box.replaceChildren(...nodes);
  box.querySelectorAll("details").forEach((d) => { d.open = open.has(d.dataset.key); });
}

async function refresh() {
  const status = document.getElementById("freshness");
  try {
    const resp = await fetch("api/state", { cache: "no-store" });
    if (!resp.ok) throw new Error(`the server answered ${resp.status}`);
    const s = await resp.json();
    document.getElementById("project").textContent = s.project;
    put("stages", stages(s.stages));
    put("models", ...(s.models || []).map(model));
    put("letters", letters(s.dead_letters));
    put("latest", latest(s.latest_prediction));
    status.textContent = `as of ${s.at.slice(0, 19).replace("T", " ")} UTC, clock: ${s.clock}`;
    status.className = "";
  } catch (err) {
    status.textContent = `no news: ${err.message}; trying again`;
    status.className = "bad";
  }
}

refresh();
setInterval(refresh, 2000);
