// @ts-check
// Keys; none of them in a field, none with a modifier.
import { $, $$ } from "./dom.js";
import { closeMenus, showSheet } from "./controls.js";
import { say } from "./toasts.js";

/** @type {Record<string, string>} */
const PLACES = { o: "/", f: "/flows/", r: "/runs/", s: "/schedules/", w: "/workers/" };
const TOGETHER_MS = 1200; // g and what follows it
const FIELDS = "input, textarea, select, dialog, [contenteditable]";

let prefixed = 0; // when g was pressed
let error = -1; // the index of the error that was shown last

export function start() {
  document.addEventListener("keydown", pressed);
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.key === "Escape") return closeMenus();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/** @type {Element} */ (event.target).closest(FIELDS)) return;
  const search = $("#search");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "?") showSheet();
  else if (event.key === "g") prefixed = Date.now();
  else if (event.key === "e") showNextError();
  else if (Date.now() - prefixed < TOGETHER_MS && PLACES[event.key]) location.href = PLACES[event.key];
}

function showNextError() {
  const found = $$(".log .ERROR, .log .CRITICAL");
  if (!found.length) return say("no error among the lines shown");
  error = (error + 1) % found.length;
  const line = found[error].closest("p");
  if (!line) return;
  line.scrollIntoView({ block: "center" });
  location.replace("#" + line.id);
}
