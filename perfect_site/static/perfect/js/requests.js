// @ts-check
// What htmx sends and gets: the token, a session that has ended, answers whose button is gone.
import { $, parsed } from "./dom.js";
import { localise } from "./times.js";
import { fadeAll, toast } from "./toasts.js";

/** @typedef {CustomEvent<any>} HtmxEvent */

/** Listen to htmx, and to the choice of a configuration. */
export function start() {
  on("htmx:configRequest", addToken);
  on("htmx:beforeSwap", leaveIfSignedOut);
  on("htmx:beforeRequest", (event) => event.detail.elt.addEventListener("htmx:beforeOnLoad", toastAnyway));
  on("htmx:sendError", () => toast("The server cannot be reached. Nothing was sent."));
  on("htmx:load", (event) => {
    localise(event.detail.elt.parentNode);
    fadeAll();
  });
  document.addEventListener("change", showDefaults);
}

/**
 * @param {string} name
 * @param {(event: HtmxEvent) => void} deed
 */
function on(name, deed) {
  document.addEventListener(name, (event) => deed(/** @type {HtmxEvent} */ (event)));
}

/**
 * The token goes into a header, as fragments that all share cannot carry one.
 * @param {HtmxEvent} event
 */
function addToken(event) {
  const token = /** @type {HTMLMetaElement | null} */ ($("meta[name=csrf]"));
  if (token && event.detail.verb !== "get") event.detail.headers["X-CSRFToken"] = token.content;
}

/** @param {HtmxEvent} event */
function leaveIfSignedOut(event) {
  const { pathname } = new URL(event.detail.xhr.responseURL || location.href);
  if (pathname !== "/login/") return;
  event.detail.shouldSwap = false;
  location.reload();
}

/**
 * A live frame may take a button away before its answer is here, and htmx looks for the toasts around the button.
 * @param {Event} event
 */
function toastAnyway(event) {
  const { elt, xhr } = /** @type {HtmxEvent} */ (event).detail;
  if (elt.isConnected || (xhr.status < 400 && xhr.getResponseHeader("HX-Retarget") !== "#toasts")) return;
  event.preventDefault();
  htmx.swap("#toasts", xhr.responseText, { swapStyle: "afterbegin" });
}

/**
 * Another configuration has other defaults; what was typed stays.
 * @param {Event} event
 */
async function showDefaults(event) {
  const choice = event.target;
  if (!(choice instanceof HTMLSelectElement) || choice.id !== "configuration" || !choice.form) return;
  const flow = choice.form.action.replace(/run\/$/, "");
  const answer = await fetch(`${flow}?configuration=${encodeURIComponent(choice.value)}`);
  if (!answer.ok) return;
  const fresh = parsed(await answer.text());
  const fields = document.querySelectorAll("#run-form [name^='p-']");
  for (const el of fields) showDefault(el, fresh.getElementById(el.id));
}

/**
 * @param {Element} el
 * @param {Element | null} fresh the same field with the other defaults
 */
function showDefault(el, fresh) {
  if (el instanceof HTMLSelectElement && fresh instanceof HTMLSelectElement) {
    el.options[0].textContent = fresh.options[0].textContent;
  } else if (hasPlaceholder(el) && hasPlaceholder(fresh)) {
    el.placeholder = fresh.placeholder;
  }
}

/**
 * @param {Element | null} el
 * @returns {el is HTMLInputElement | HTMLTextAreaElement}
 */
const hasPlaceholder = (el) => el !== null && "placeholder" in el;
