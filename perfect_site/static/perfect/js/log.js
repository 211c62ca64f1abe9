// @ts-check
// A run's log: new lines go to its end, the view follows them unless the reader has scrolled away.
import { $, $$, around, element, parsed } from "./dom.js";
import { get } from "./fragments.js";
import { localise } from "./times.js";

/**
 * @typedef {string | [className: string, text: string][]} Said a message; in pieces if it has colours
 * @typedef {[seq: number, time: string, level: string, task: string, message: Said]} Line
 * @typedef {{ level?: string, find?: string }} Wanted what the reader has narrowed the log to
 */

const KEPT = 5000; // rows in the page; older ones are one click away
const NEAR_PX = 30; // who is so near to the end wants to follow
/** @type {Record<string, string>} */
const BUCKETS = { DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error", CRITICAL: "error" };

let unseen = 0; // lines that came while the reader was elsewhere in the log

/**
 * A message without its colours. Pure.
 * @param {Said} message
 */
export function plain(message) {
  return typeof message === "string" ? message : message.map(([, text]) => text).join("");
}

/**
 * Whether a line is among what the reader has narrowed the log to. Pure.
 * @param {Wanted} wanted
 * @param {Line} line
 */
export function matches({ level, find }, [, , name, , message]) {
  if (level && BUCKETS[name] !== level) return false;
  return !find || plain(message).toLowerCase().includes(find.toLowerCase());
}

/**
 * What is new of the lines that came, and how many are missing before them. Pure.
 * @param {number} last the number of the last line that is there
 * @param {Line[]} lines
 */
export function unread(last, lines) {
  const fresh = lines.filter(([seq]) => seq > last);
  return { fresh, missing: fresh.length ? fresh[0][0] - last - 1 : 0 };
}

/** The log of this page, if it has one. */
const logOf = () => $("[data-log]");

/**
 * The box that scrolls.
 * @param {HTMLElement} log
 */
const boxOf = (log) => /** @type {HTMLElement} */ ($(".log", log));

/** The number of the last line that the page has. */
export const lastLine = () => Number(logOf()?.dataset.last ?? 0);

export function start() {
  document.addEventListener("click", clicked);
  document.addEventListener("scroll", scrolled, true);
  document.addEventListener("htmx:afterSettle", (event) => {
    if (/** @type {CustomEvent} */ (event).detail.elt.id === "log" && !location.hash) settle();
  });
  settle();
}

/**
 * Lines from the server.
 * @param {{ run: string, lines: Line[] }} message
 */
export function add({ run, lines }) {
  const log = $(`[data-log="${run}"]`);
  if (!log || "part" in log.dataset) return;
  const { fresh, missing } = unread(Number(log.dataset.last || 0), lines);
  if (!fresh.length) return;
  const rows = fresh.filter((line) => matches(log.dataset, line)).map(rowOf);
  if (missing > 0) rows.unshift(gapOf(missing));
  append(log, rows);
  log.dataset.last = String(fresh[fresh.length - 1][0]);
}

/** Ask for the lines that are missing, where no socket brings them. */
export async function poll() {
  const log = logOf();
  if (!log || "part" in log.dataset || log.dataset.level || log.dataset.find) return;
  const html = await get(`${log.dataset.url}?rows=1&after=${log.dataset.last}`).catch(() => null);
  if (html === null) return;
  append(
    log,
    $$("p[data-seq]", parsed(html)).filter((row) => Number(row.dataset.seq) > Number(log.dataset.last)),
  );
}

/**
 * @param {HTMLElement} log
 * @param {HTMLElement[]} rows
 */
function append(log, rows) {
  if (!rows.length) return;
  const box = boxOf(log);
  $("[data-none]", box)?.remove();
  rows.forEach((row) => localise(row));
  box.append(...rows);
  log.dataset.last = rows[rows.length - 1].dataset.seq || log.dataset.last;
  while (box.childElementCount > KEPT) box.firstElementChild?.remove();
  if (isFollowing()) return toEnd(box);
  unseen += rows.length;
  showUnseen(log);
}

/** @param {number} missing */
function gapOf(missing) {
  return element("p", "gap", `${missing.toLocaleString("en")} lines not shown here; the download has them all`);
}

/**
 * @param {Line} line
 * @returns {HTMLElement}
 */
function rowOf([seq, time, level, task, message]) {
  const row = element("p", "");
  row.id = `L${seq}`;
  row.dataset.seq = String(seq);
  const number = /** @type {HTMLAnchorElement} */ (element("a", "l", seq));
  number.href = `#L${seq}`;
  row.append(number, timeOf(time), element("span", level, level), element("span", "k", task || ""), saidOf(message));
  return row;
}

/** @param {string} moment in ISO 8601 */
function timeOf(moment) {
  const cell = element("span", "t");
  const time = document.createElement("time");
  time.dateTime = moment;
  time.dataset.f = "clock";
  cell.append(time);
  return cell;
}

/** @param {Said} message */
function saidOf(message) {
  if (typeof message === "string") return element("span", "m", message);
  const cell = element("span", "m");
  cell.append(...message.map(([className, text]) => element("span", className, text)));
  return cell;
}

// ---------------------------------------------------------------------------------------------------- following the end

const isFollowing = () => $("[data-follow]")?.getAttribute("aria-pressed") === "true";

/** @param {boolean} on */
function follow(on) {
  const button = $("[data-follow]");
  const log = logOf();
  if (!button || !log) return;
  button.setAttribute("aria-pressed", String(on));
  if (!on) return;
  unseen = 0;
  showUnseen(log);
  toEnd(boxOf(log));
}

/** @param {HTMLElement} log */
function showUnseen(log) {
  const pill = $("[data-new]", log);
  if (!pill) return;
  pill.hidden = !unseen;
  pill.textContent = `${unseen.toLocaleString("en")} new ↓`;
}

/** @param {HTMLElement} box */
function toEnd(box) {
  box.scrollTop = box.scrollHeight;
}

/** @param {Event} event */
function clicked(event) {
  if (around(event, "[data-new]")) follow(true);
  if (around(event, "[data-follow]")) follow(!isFollowing());
  const wrap = around(event, "[data-wrap]");
  const box = $("[data-log] .log");
  if (wrap && box) wrap.setAttribute("aria-pressed", String(!box.classList.toggle("nowrap")));
}

/** @param {Event} event */
function scrolled({ target }) {
  if (!(target instanceof Element) || !target.matches("[data-log] .log")) return;
  const isNear = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_PX;
  if (isNear !== isFollowing()) follow(isNear);
}

/** Show the line that the address asks for, or the end. */
async function settle() {
  const log = logOf();
  if (!log) return;
  const line = /^#L(\d+)$/.exec(location.hash);
  if (!line) return toEnd(boxOf(log));
  follow(false);
  if (showLine()) return;
  await htmx.ajax("GET", `${log.dataset.url}?line=${line[1]}`, { target: "#log", swap: "outerHTML" });
  follow(false);
  if (showLine()) location.replace(location.hash); // so that the browser marks it
}

/** @returns {boolean} whether the line that the address asks for is there */
function showLine() {
  const found = $(location.hash);
  found?.scrollIntoView({ block: "center" });
  return found !== null;
}
