// @ts-check
// Pieces of HTML that take the place of what changed its shape. What the reader has done there stays: the focus, what
// is unfolded, how far it is scrolled, a form that is being filled in.
import { $, $$, parsed } from "./dom.js";
import { hear } from "./standing.js";
import { localise } from "./times.js";
import { say } from "./toasts.js";

const SETTLED_MS = 400; // several changes make one request
const MARKS = ["id", "href", "hx-post", "name", "data-keep"]; // by which an element is found again

let asked = 0; // the timer of the next request

/**
 * A fragment from the server.
 * @param {string} url
 * @returns {Promise<string>}
 */
export async function get(url) {
  const answer = await fetch(url, { headers: { "HX-Request": "true" } });
  const text = await answer.text();
  if (!answer.ok || answer.redirected) throw new Error(`${url}: ${answer.status}`);
  hear();
  return text;
}

/**
 * Ask for an element's own address; an error changes nothing.
 * @param {HTMLElement} el
 */
export async function redraw(el) {
  const html = await get(el.dataset.live ?? "").catch(() => null);
  if (html !== null) replace({ target: "#" + el.id, html });
}

/** Ask for everything on the page that has an address. */
export function redrawAll() {
  $$("[data-live][id]").forEach(redraw);
}

/**
 * A list that is the reader's own has changed: ask for it.
 * @param {{ topic: string }} message
 */
export function changed({ topic }) {
  const selector = `[data-refresh="${topic}"]`;
  if (!$(selector)) return;
  clearTimeout(asked);
  asked = setTimeout(() => {
    const el = $(selector);
    if (el) redraw(el);
  }, SETTLED_MS);
}

/**
 * Put a fragment in its place.
 * @param {{ target: string, html: string }} message
 */
export function replace({ target, html }) {
  const old = $(target);
  const fresh = /** @type {HTMLElement | null} */ (parsed(html).firstElementChild);
  if (!old || !fresh) return;
  if ("key" in old.dataset && old.dataset.key === fresh.dataset.key) return; // a form that is being filled in
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const grow = startFrom(old, fresh);
  unfold(old, fresh);
  const scrolled = $$("[data-keep]", old).map((el) => ({ keep: el.dataset.keep, x: el.scrollLeft, y: el.scrollTop }));
  sayState(old, fresh);

  old.replaceWith(fresh);
  htmx.process(fresh);
  localise(fresh.parentNode);
  grow();
  for (const { keep, x, y } of scrolled) $(`[data-keep="${keep}"]`, fresh)?.scrollTo(x, y);
  if (focus) refocus(fresh, focus);
}

/**
 * Give the new bars the old widths, and return what lets them grow to their own: a new element would jump there.
 * @param {HTMLElement} old
 * @param {HTMLElement} fresh
 * @returns {() => void}
 */
function startFrom(old, fresh) {
  const widths = new Map($$("rect[data-seg]", old).map((rect) => [rect.dataset.seg, rect.getAttribute("width")]));
  const growing = $$("rect[data-seg]", fresh)
    .filter((rect) => widths.has(rect.dataset.seg))
    .map((rect) => ({ rect, width: rect.getAttribute("width") ?? "" }));
  for (const { rect } of growing) rect.setAttribute("width", widths.get(rect.dataset.seg) ?? "");
  return () => {
    if (!growing.length) return;
    fresh.getBoundingClientRect(); // the old widths must have been drawn
    for (const { rect, width } of growing) rect.setAttribute("width", width);
  };
}

/**
 * What was unfolded is unfolded again.
 * @param {HTMLElement} old
 * @param {HTMLElement} fresh
 */
function unfold(old, fresh) {
  const now = /** @type {HTMLDetailsElement[]} */ ($$("details", fresh));
  $$("details[open]", old).forEach((_, index) => {
    if (now[index]) now[index].open = true;
  });
}

/**
 * @param {HTMLElement} old
 * @param {HTMLElement} fresh
 */
function sayState(old, fresh) {
  const { state, name } = fresh.dataset;
  if (old.dataset.state && old.dataset.state !== state) say(`${name} is ${state?.toLowerCase()}`);
}

/**
 * Focus what the reader had focused, if it is still there.
 * @param {HTMLElement} root
 * @param {Element} old
 */
function refocus(root, old) {
  for (const mark of MARKS) {
    const value = old.getAttribute(mark);
    const same = value && $(`[${mark}="${CSS.escape(value)}"]`, root);
    if (same) return same.focus({ preventScroll: true });
  }
}
