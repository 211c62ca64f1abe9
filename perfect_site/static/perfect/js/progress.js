// @ts-check
// Numbers that move what is drawn: bars, percents, estimates, the page's title and icon.
import { $, $$, write } from "./dom.js";
import { range } from "./moments.js";

/**
 * How a run stands.
 * @typedef {object} Numbers
 * @property {string} run its id
 * @property {number} seq the version of its row
 * @property {string} name
 * @property {string} state
 * @property {number} pct 0–100
 * @property {string} note what it is doing
 * @property {[number, number] | null} eta seconds that are left, between two estimates
 * @property {[all: number, warnings: number, errors: number]} log how many lines there are
 * @property {[task: number, pct: number, state: string, note: string][]} tasks those that run
 * @property {[segment: number, pct: number][]} segs how far each piece of the bar is filled
 */

const HELD = ["RUNNING", "LOST", "PAUSED"];
const WAITING = ["PENDING", "SCHEDULED"];
/** @type {Record<string, string>} */
const COLOURS = {
  COMPLETED: "#2ff3a0",
  FAILED: "#ff5d73",
  CRASHED: "#ff8a3d",
  CANCELLED: "#98a6c4",
  LOST: "#d0a2ff",
};

/** @type {Map<string, number>} */
const versions = new Map();

/**
 * Note which version of a run the page shows.
 * @param {string} run
 * @param {number} version
 */
export function know(run, version) {
  versions.set(run, version);
}

/**
 * The version of a run that the page shows; 0 if it shows none.
 * @param {string} run
 */
export const versionOf = (run) => versions.get(run) ?? 0;

/**
 * What is shown never falls. Pure.
 * @param {number} shown
 * @param {number} pct
 */
export const risen = (shown, pct) => Math.max(pct, shown);

/**
 * How many lines there are of each sort. Pure.
 * @param {[all: number, warnings: number, errors: number]} log
 */
export function sorts([all, warning, error]) {
  return { all, info: all - warning - error, warning, error };
}

/**
 * The title of a run's page. Pure.
 * @param {{ state: string, pct: number, name: string }} run
 */
export function titleOf({ state, pct, name }) {
  const word = state[0] + state.slice(1).toLowerCase();
  return `${HELD.includes(state) ? `${Math.floor(pct)} %` : word} · ${name}`;
}

/**
 * The icon of a run's page, a ring in the colour of its state, as an address. Pure.
 * @param {{ state: string, pct: number }} run
 */
export function iconOf({ state, pct }) {
  const colour = COLOURS[state] || "#25e3ff";
  const length = HELD.includes(state) ? pct : 100;
  const ring =
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="none" stroke-width="6">' +
    '<circle cx="16" cy="16" r="12" stroke="#33436b"/>' +
    `<circle cx="16" cy="16" r="12" stroke="${colour}" pathLength="100" stroke-dasharray="${length} 200"` +
    ' transform="rotate(-90 16 16)"/></g></svg>';
  return "data:image/svg+xml," + encodeURIComponent(ring);
}

/**
 * Show a run's numbers wherever the page draws it.
 * @param {Numbers} numbers
 * @param {string | undefined} focus the run that the page is about
 */
export function move(numbers, focus) {
  know(numbers.run, numbers.seq);
  for (const el of $$(`[data-run="${numbers.run}"]`)) moveRun(el, numbers);
  for (const [task, pct, , note] of numbers.tasks) moveTask(task, pct, note);
  if (focus !== numbers.run) return;
  showHead(numbers);
  for (const [sort, count] of Object.entries(sorts(numbers.log))) {
    const el = $(`[data-count="${sort}"]`);
    if (el) write(el, count.toLocaleString("en"));
  }
}

/**
 * @param {HTMLElement} el
 * @param {Numbers} numbers
 */
function moveRun(el, { state, pct, note, eta, segs }) {
  const value = risen(Number(el.dataset.pct || 0), pct);
  el.dataset.pct = String(value);
  const percent = $("[data-pct]", el);
  if (percent && !WAITING.includes(state)) write(percent, `${Math.floor(value)} %`);
  const says = $("[data-note]", el);
  if (says && note) write(says, note);
  const left = $("[data-eta]", el);
  if (left) showLeft(left, eta);
  $("rect[data-whole]", el)?.setAttribute("width", `${value.toFixed(2)}%`);
  for (const [seg, filled] of segs) {
    for (const rect of $$(`rect[data-seg="${seg}"]`, el)) rect.setAttribute("width", `${filled}%`);
  }
  $("svg.wbar", el)?.setAttribute("aria-label", `${Math.floor(value)} percent done`);
}

/**
 * @param {HTMLElement} el
 * @param {[number, number] | null} eta
 */
function showLeft(el, eta) {
  if (el.parentElement) el.parentElement.hidden = !eta;
  if (eta) write(el, range(eta));
}

/**
 * @param {number} task
 * @param {number} pct
 * @param {string} note
 */
function moveTask(task, pct, note) {
  const row = $(`tr[data-task="${task}"]`);
  if (!row) return;
  const percent = $("[data-task-pct]", row);
  if (percent) write(percent, `${pct} %`);
  const says = $("[data-task-note]", row);
  if (says && note) write(says, note);
}

/** @param {Numbers} numbers */
function showHead(numbers) {
  document.title = titleOf(numbers);
  const icon = $("#favicon");
  const href = iconOf(numbers);
  if (icon && icon.getAttribute("href") !== href) icon.setAttribute("href", href);
}
