// @ts-check
// Whether the page shows what is, or what was: the badge LIVE.
import { $, write } from "./dom.js";
import { clock } from "./moments.js";

const QUIET_MS = 45_000; // the server sends something at least every 20 seconds
const PATIENT_MS = 8_000; // a new connection is often there before anybody needs the time

/** @typedef {{ open: boolean, heard: Date | null }} Standing whether the socket is open, and the last news */

/** @type {Standing} */
const standing = { open: false, heard: null };

/**
 * What the badge says. Pure.
 * @param {Standing} standing
 * @param {Date} now
 * @returns {{ live: boolean, text: string }}
 */
export function badge({ open, heard }, now) {
  const silence = heard ? now.getTime() - heard.getTime() : 0;
  const quiet = silence > QUIET_MS;
  if (open && !quiet) return { live: true, text: "LIVE" };
  const text = heard && (quiet || silence > PATIENT_MS) ? `as of ${clock(heard)}` : "reconnecting";
  return { live: false, text };
}

/** Note that the server has sent something just now. */
export function hear() {
  standing.heard = new Date();
  show();
}

/**
 * Note whether the socket is open.
 * @param {boolean} open
 */
export function setOpen(open) {
  standing.open = open;
}

export const isOpen = () => standing.open;

/** For how many milliseconds nothing has come; 0 if nothing ever has. */
export const silence = () => (standing.heard ? Date.now() - standing.heard.getTime() : 0);

export function show() {
  const el = $("#live");
  if (!el) return;
  const { live, text } = badge(standing, new Date());
  el.hidden = false;
  el.className = live ? "live on" : "live off";
  write(el, text);
}
