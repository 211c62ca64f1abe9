// @ts-check
// Moments on the page: the server writes UTC, the reader sees local time. One ticker moves all of them.
import { $$ } from "./dom.js";
import { forms, moving } from "./moments.js";

let ahead = 0; // milliseconds that the server's clock is before the reader's

/**
 * Take the server's clock for all that counts from now.
 * @param {string} now what the server's clock says, in ISO 8601
 */
export function follow(now) {
  ahead = new Date(now).getTime() - Date.now();
}

/**
 * Say each `<time data-f>` in the reader's zone.
 * @param {ParentNode | null} [root]
 */
export function localise(root = document) {
  const now = new Date(Date.now() + ahead);
  for (const el of timesIn(root ?? document)) {
    const moment = new Date(el.dateTime);
    say(el, moment, now);
    el.title = `${forms.stamp(moment, now)} ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  }
}

/** Say all times anew, and each second those that move. */
export function start() {
  localise();
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
}

function tick() {
  if (document.hidden) return;
  const now = new Date(Date.now() + ahead);
  for (const el of timesIn(document)) {
    if (moving.has(el.dataset.f ?? "")) say(el, new Date(el.dateTime), now);
  }
}

/**
 * @param {ParentNode} root
 * @returns {HTMLTimeElement[]}
 */
const timesIn = (root) => /** @type {HTMLTimeElement[]} */ ($$("time[data-f]", root));

/**
 * @param {HTMLTimeElement} el
 * @param {Date} moment
 * @param {Date} now
 */
function say(el, moment, now) {
  const text = forms[el.dataset.f ?? ""](moment, now);
  if (el.textContent !== text) el.textContent = text;
}
