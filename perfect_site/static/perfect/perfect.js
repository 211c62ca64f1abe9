// What every page does: theme, CSRF for htmx, moments in the reader's zone, copying, keys. No state but the theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function say(sentence) { const spoken = $("#spoken"); if (spoken) spoken.textContent = sentence; }

function toast(sentence) {
  const box = document.createElement("div"), text = document.createElement("span"), close = document.createElement("button");
  box.className = "toast"; text.textContent = sentence;
  close.type = "button"; close.dataset.close = ""; close.setAttribute("aria-label", "Dismiss"); close.textContent = "×";
  box.append(text, close); $("#toasts").prepend(box); fade(box);
}

function fade(box) { if (!box.classList.contains("bad")) setTimeout(() => box.remove(), 9000); }

// ---- moments: the server writes UTC, the reader sees local time; one ticker for all
const pad = (number) => String(number).padStart(2, "0");
const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;

function span(seconds) {  // "4 s", "12 min", "3 h", "6 d"
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function watch(seconds) {  // a stopwatch: 0:58, 1:02:03
  const s = Math.max(0, Math.floor(seconds));
  return s < 3600 ? `${Math.floor(s / 60)}:${pad(s % 60)}` : `${Math.floor(s / 3600)}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
}

const forms = {
  clock: (d) => clock(d) + "." + String(d.getMilliseconds()).padStart(3, "0"),
  stamp: (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(d)}`,
  day: (d, now) => {
    const far = Math.abs(d - now) > 6 * 864e5 ? { day: "numeric", month: "short" } : d.getDate() !== now.getDate() ? { weekday: "short" } : null;
    return (far ? d.toLocaleDateString("en-GB", far) + " " : "") + `${pad(d.getHours())}:${pad(d.getMinutes())}`;
  },
  age: (d, now) => span((now - d) / 1000),
  ago: (d, now) => now - d < 2000 ? "now" : `${span((now - d) / 1000)} ago`,
  until: (d, now) => d > now ? `in ${span((d - now) / 1000)}` : now - d < 60000 ? "now" : `due ${span((now - d) / 1000)} ago`,
  since: (d, now) => watch((now - d) / 1000),
};
const moving = new Set(["age", "ago", "until", "since"]);

function localise(root = document, tick = false) {
  const now = new Date(Date.now() + (window.perfectSkew || 0));
  for (const el of $$("time[data-f]", root)) {
    const form = el.dataset.f;
    if (tick && !moving.has(form)) continue;
    const when = new Date(el.dateTime), text = forms[form](when, now);
    if (el.textContent !== text) el.textContent = text;
    if (!tick) el.title = `${forms.stamp(when)} ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  }
}
localise();
setInterval(() => { if (!document.hidden) localise(document, true); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) localise(document, true); });

// ---- htmx: the token goes into a header, as fragments that all share cannot carry one
document.addEventListener("htmx:configRequest", (event) => {
  const token = $("meta[name=csrf]");
  if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token.content;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (new URL(event.detail.xhr.responseURL || location.href).pathname === "/login/") { event.detail.shouldSwap = false; location.reload(); }
});
// A live frame may take a button away before its answer is here, and htmx looks for the toasts around the button.
function toastAnyway(event) {
  const { elt, xhr } = event.detail;
  if (elt.isConnected || (xhr.status < 400 && xhr.getResponseHeader("HX-Retarget") !== "#toasts")) return;
  event.preventDefault();
  htmx.swap("#toasts", xhr.responseText, { swapStyle: "afterbegin" });
}
document.addEventListener("htmx:beforeRequest", (event) => event.detail.elt.addEventListener("htmx:beforeOnLoad", toastAnyway));
document.addEventListener("htmx:sendError", () => toast("The server cannot be reached. Nothing was sent."));
document.addEventListener("htmx:load", (event) => {
  localise(event.detail.elt.parentNode || document);
  $$(".toast").forEach(fade);
});

// ---- another configuration has other defaults; what was typed stays
document.addEventListener("change", async (event) => {
  if (event.target.id !== "configuration") return;
  const answer = await fetch(`${event.target.form.action.replace(/run\/$/, "")}?configuration=${encodeURIComponent(event.target.value)}`), box = document.createElement("template");
  if (!answer.ok) return;
  box.innerHTML = await answer.text();
  for (const el of $$("#run-form [name^='p-']")) {
    const same = box.content.getElementById(el.id);
    if (!same) continue;
    if (el.options) el.options[0].textContent = same.options[0].textContent; else el.placeholder = same.placeholder;
  }
});

// ---- theme
const theme = () => document.documentElement.dataset.theme;
function showTheme() { $$("[data-theme-set]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.themeSet === theme())); }
showTheme();

// ---- one listener for all that can be clicked
document.addEventListener("click", (event) => {
  const hit = (selector) => event.target.closest(selector);
  const setter = hit("[data-theme-set]"), copier = hit("[data-copy]"), close = hit("[data-close]");
  if (setter) { localStorage.setItem("theme", setter.dataset.themeSet); document.documentElement.dataset.theme = setter.dataset.themeSet; showTheme(); }
  if (copier) copy($(copier.dataset.copy).textContent);
  if (close) close.closest(".toast").remove();
  if (hit("[data-sheet]")) $("#sheet").showModal();
  $$("details.menu[open]").forEach((menu) => { if (!menu.contains(event.target) || hit(".item")) menu.open = false; });
});

async function copy(text) {
  try { await navigator.clipboard.writeText(text); } catch {  // no clipboard on plain http: the old way
    const area = document.createElement("textarea");
    area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
  toast("Copied.");
}

// ---- keys; none of them in a field, none with a modifier
const goes = { o: "/", f: "/flows/", r: "/runs/", s: "/schedules/", w: "/workers/" };
let prefix = 0;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { $$("details.menu[open]").forEach((menu) => { menu.open = false; }); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
  if (event.key === "/" && $("#search")) { event.preventDefault(); $("#search").focus(); }
  else if (event.key === "?" && $("#sheet")) $("#sheet").showModal();
  else if (event.key === "g") prefix = Date.now();
  else if (event.key === "e") nextError();
  else if (Date.now() - prefix < 1200 && goes[event.key]) location.href = goes[event.key];
});

let error = -1;
function nextError() {
  const found = $$(".log .ERROR, .log .CRITICAL");
  if (!found.length) return say("no error among the lines shown");
  error = (error + 1) % found.length;
  const line = found[error].closest("p");
  line.scrollIntoView({ block: "center" }); location.replace("#" + line.id);
}
$$(".toast").forEach(fade);
$(".top nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
