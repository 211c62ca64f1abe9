// One socket a page. Numbers move what is drawn, fragments replace what changed shape, lines go to the log's end.
// Every message can be lost: on each connection the page says what it has and gets what it missed. Without a socket
// the same fragments are fetched every five seconds. Uses $, $$, say, clock, localise of perfect.js.
"use strict";

const page = document.body.dataset;
const topics = (page.topics || "").split(" ").filter(Boolean);
const badge = $("#live");
const seqs = { [`run:${page.focus}`]: Number(page.seq || 0) };
let socket = null, open = false, tries = 0, heard = null, titles = document.title;

// ------------------------------------------------------------------------------------------------- the connection
function connect() {
  if (socket && socket.readyState < 2) return;
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/live/`);
  socket.onopen = () => {
    open = true; send({ sub: Object.fromEntries(topics.map((topic) => [topic, since(topic)])) });
    if (document.hidden) send({ hidden: true });
  };
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    tries = 0; heard = new Date(); window.perfectSkew = new Date(frame.at) - heard; show();
    for (const message of frame.m) { try { (does[message.t] || ignore)(message); } catch (wrong) { console.error(wrong); } }
    send({ ack: frame.n });
  };
  socket.onclose = (event) => {
    open = false; show();
    if (event.code === 4401) { location.reload(); return; }
    if (event.code !== 4403) setTimeout(connect, Math.random() * Math.min(20000, 500 * 2 ** tries++) + 200);
  };
}
function send(message) { if (socket && socket.readyState === 1) socket.send(JSON.stringify(message)); }
function since(topic) { const log = $("[data-log]"); return topic.endsWith(":log") ? Number(log ? log.dataset.last : 0) : seqs[topic] || 0; }
function show() {
  const quiet = heard && Date.now() - heard > 45000;
  badge.hidden = !topics.length;
  badge.className = "live " + (open && !quiet ? "on" : "off");
  const text = open && !quiet ? "LIVE" : heard && (quiet || Date.now() - heard > 8000) ? `as of ${clock(heard)}` : "reconnecting";
  if (badge.textContent !== text) badge.textContent = text;
}
setInterval(() => {
  show();
  if (open && heard && Date.now() - heard > 60000) socket.close();
}, 2000);
setInterval(() => { if (!open && topics.length && !document.hidden) poll(); }, 5000);
async function get(url) {
  const answer = await fetch(url, { headers: { "HX-Request": "true" } }), text = await answer.text();
  if (!answer.ok || answer.redirected) throw new Error(`${url}: ${answer.status}`);
  heard = new Date(); show();
  return text;
}
const redraw = (el) => get(el.dataset.live).then((html) => fragment({ target: "#" + el.id, html }), ignore);
function poll() {
  $$("[data-live][id]").forEach(redraw);
  const log = $("[data-log]"); if (!log || "part" in log.dataset || log.dataset.level || log.dataset.find) return;
  get(`${log.dataset.url}?rows=1&after=${log.dataset.last}`).then((html) => {
    const box = document.createElement("template"); box.innerHTML = html;
    append(log, $$("p[data-seq]", box.content).filter((p) => p.dataset.seq > Number(log.dataset.last)));
  }, ignore);
}
document.addEventListener("visibilitychange", () => send({ hidden: document.hidden }));
addEventListener("pagehide", () => { if (socket) { socket.onclose = null; socket.close(); open = false; } });
addEventListener("pageshow", (event) => { if (event.persisted && topics.length) connect(); });

// --------------------------------------------------------------------------------------------------- what comes in
const ignore = () => {};
const does = { p: numbers, html: fragment, log: lines, changed, refused: ignore };

function numbers(m) {
  seqs[`run:${m.run}`] = m.seq;
  for (const el of $$(`[data-run="${m.run}"]`)) {
    const pct = $("[data-pct]", el), note = $("[data-note]", el), eta = $("[data-eta]", el), whole = $("rect[data-whole]", el);
    const value = Math.max(m.pct, Number(el.dataset.pct || 0));  // what is shown never falls
    el.dataset.pct = value;
    if (pct && !["PENDING", "SCHEDULED"].includes(m.state)) set(pct, `${Math.floor(value)} %`);
    if (whole) whole.setAttribute("width", `${value.toFixed(2)}%`);
    if (note && m.note) set(note, m.note);
    if (eta) { eta.parentNode.hidden = !m.eta; if (m.eta) set(eta, range(m.eta)); }
    for (const [seg, filled] of m.segs) for (const rect of $$(`rect[data-seg="${seg}"]`, el)) rect.setAttribute("width", `${filled}%`);
    const bar = $("svg.wbar", el); if (bar) bar.setAttribute("aria-label", `${Math.floor(value)} percent done`);
  }
  for (const [task, pct, , note] of m.tasks) {
    const row = $(`tr[data-task="${task}"]`); if (!row) continue;
    const cell = $("[data-task-pct]", row), says = $("[data-task-note]", row);
    if (cell) set(cell, `${pct} %`);
    if (says && note) set(says, note);
  }
  if (page.focus === m.run) { heading(m); counts(m.log); }
}
const set = (el, text) => { if (el.textContent !== text) el.textContent = text; };
function range([low, high]) { const a = watch(Math.round(low)), b = watch(Math.round(high)); return a === b ? b : `${a}–${b}`; }

function heading(m) {
  const held = ["RUNNING", "LOST", "PAUSED"].includes(m.state), word = m.state[0] + m.state.slice(1).toLowerCase();
  document.title = `${held ? `${Math.floor(m.pct)} %` : word} · ${m.name}`;
  const colour = { COMPLETED: "#2ff3a0", FAILED: "#ff5d73", CRASHED: "#ff8a3d", CANCELLED: "#98a6c4", LOST: "#d0a2ff" }[m.state] || "#25e3ff";
  const ring = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="none" stroke-width="6"><circle cx="16" cy="16" r="12" stroke="#33436b"/><circle cx="16" cy="16" r="12" stroke="${colour}" pathLength="100" stroke-dasharray="${held ? m.pct : 100} 200" transform="rotate(-90 16 16)"/></g></svg>`;
  const icon = $("#favicon"), href = "data:image/svg+xml," + encodeURIComponent(ring);
  if (icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}
function counts([all, warnings, errors]) {
  for (const [word, count] of Object.entries({ all, info: all - warnings - errors, warning: warnings, error: errors })) { const el = $(`[data-count="${word}"]`); if (el) set(el, count.toLocaleString("en")); }
}

function fragment(m) {
  const old = $(m.target); if (!old) return;
  const box = document.createElement("template"); box.innerHTML = m.html;
  if ("key" in old.dataset && old.dataset.key === box.content.firstElementChild.dataset.key) return; // a form that is being filled in
  const fresh = box.content.firstElementChild, focus = old.contains(document.activeElement) ? document.activeElement : null;
  const widths = new Map($$("rect[data-seg]", old).map((rect) => [rect.dataset.seg, rect.getAttribute("width")]));
  const wide = $$("rect[data-seg]", fresh).filter((rect) => widths.has(rect.dataset.seg)).map((rect) => [rect, rect.getAttribute("width")]);
  wide.forEach(([rect]) => rect.setAttribute("width", widths.get(rect.dataset.seg)));
  $$("details[open]", old).forEach((details, index) => { const same = $$("details", fresh)[index]; if (same) same.open = true; });
  const scrolled = $$("[data-keep]", old).map((el) => [el.dataset.keep, el.scrollLeft, el.scrollTop]);
  if (old.dataset.state && old.dataset.state !== fresh.dataset.state) say(`${fresh.dataset.name} is ${fresh.dataset.state.toLowerCase()}`);
  old.replaceWith(fresh); htmx.process(fresh); localise(fresh.parentNode);
  if (wide.length) { fresh.getBoundingClientRect(); wide.forEach(([rect, width]) => rect.setAttribute("width", width)); }
  for (const [keep, left, top] of scrolled) { const same = $(`[data-keep="${keep}"]`, fresh); if (same) same.scrollTo(left, top); }
  if (focus) refocus(fresh, focus);
}
function refocus(root, old) {
  for (const name of ["id", "href", "hx-post", "name", "data-keep"]) {
    const value = old.getAttribute(name), same = value && $(`[${name}="${CSS.escape(value)}"]`, root);
    if (same) { same.focus({ preventScroll: true }); return; }
  }
}
let asked = 0;
function changed(m) {
  const el = $(`[data-refresh="${m.topic}"]`); if (!el) return;
  clearTimeout(asked);
  asked = setTimeout(() => redraw($(`[data-refresh="${m.topic}"]`)), 400);
}

// --------------------------------------------------------------------------------------------------------- the log
const KEPT = 5000;  // rows in the page; older ones are one click away
let unseen = 0;
const following = () => $("[data-follow]")?.getAttribute("aria-pressed") === "true";
function lines(m) {
  const log = $(`[data-log="${m.run}"]`); if (!log) return;
  const last = Number(log.dataset.last || 0), fresh = m.lines.filter((line) => line[0] > last);
  if (!fresh.length || "part" in log.dataset) return;
  const rows = [];
  if (fresh[0][0] > last + 1) rows.push(gap(`${(fresh[0][0] - last - 1).toLocaleString("en")} lines not shown here; the download has them all`));
  rows.push(...fresh.filter((line) => matches(log.dataset, line)).map(row));
  append(log, rows);
  log.dataset.last = fresh[fresh.length - 1][0];
}
function append(log, rows) {
  const box = $(".log", log); if (!rows.length) return;
  $("[data-none]", box)?.remove(); rows.forEach((p) => localise(p)); box.append(...rows);
  log.dataset.last = rows[rows.length - 1].dataset.seq || log.dataset.last;
  while (box.childElementCount > KEPT) box.firstElementChild.remove();
  if (following()) { toEnd(box); } else { unseen += rows.length; pill(log); }
}
const bucket = { DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error", CRITICAL: "error" };
const plain = (message) => typeof message === "string" ? message : message.map((piece) => piece[1]).join("");
function matches(wanted, [, , level, , message]) {
  return (!wanted.level || bucket[level] === wanted.level) && (!wanted.find || plain(message).toLowerCase().includes(wanted.find.toLowerCase()));
}
function gap(text) { const p = document.createElement("p"); p.className = "gap"; p.textContent = text; return p; }
function cell(className, text, tag = "span") { const el = document.createElement(tag); el.className = className; el.textContent = text; return el; }
function row([seq, time, level, task, message]) {
  const p = document.createElement("p"), number = cell("l", seq, "a"), when = document.createElement("time"), t = cell("t", "");
  p.id = "L" + seq; p.dataset.seq = seq; number.href = "#L" + seq;
  when.dateTime = time; when.dataset.f = "clock"; t.append(when);
  const m = cell("m", typeof message === "string" ? message : "");
  if (typeof message !== "string") m.append(...message.map(([name, text]) => cell(name, text)));
  p.append(number, t, cell(level, level), cell("k", task || ""), m);
  return p;
}
function pill(log) { const el = $("[data-new]", log); el.hidden = !unseen; el.textContent = `${unseen.toLocaleString("en")} new ↓`; }
function follow(on) {
  const button = $("[data-follow]"), log = $("[data-log]"); if (!button) return;
  button.setAttribute("aria-pressed", on);
  if (on) { unseen = 0; pill(log); toEnd($(".log", log)); }
}
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-new]")) follow(true);
  if (event.target.closest("[data-follow]")) follow(!following());
  const wrap = event.target.closest("[data-wrap]");
  if (wrap) wrap.setAttribute("aria-pressed", !$("[data-log] .log").classList.toggle("nowrap"));
});
function toEnd(box) { box.scrollTop = box.scrollHeight; }
document.addEventListener("scroll", (event) => {
  if (!event.target.matches?.("[data-log] .log")) return;
  const low = event.target.scrollHeight - event.target.scrollTop - event.target.clientHeight < 30;
  if (low !== following()) follow(low);
}, true);
function settle() {  // a line that is asked for by its number, or the end
  const line = /^#L(\d+)$/.exec(location.hash), log = $("[data-log]"); if (!log) return;
  if (!line) { toEnd($(".log", log)); return; }
  follow(false);
  if ($(location.hash)) { $(location.hash).scrollIntoView({ block: "center" }); return; }
  htmx.ajax("GET", `${log.dataset.url}?line=${line[1]}`, { target: "#log", swap: "outerHTML" }).then(() => {
    const found = $(location.hash); follow(false); if (found) { found.scrollIntoView({ block: "center" }); location.replace(location.hash); }
  });
}
document.addEventListener("htmx:afterSettle", (event) => { if (event.detail.elt.id === "log" && !location.hash) settle(); });

settle();
if (topics.length) { show(); connect(); }
