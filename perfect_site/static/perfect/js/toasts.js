// @ts-check
// Sentences for the reader: spoken by screen readers, or shown in the corner.
import { $, $$, element } from "./dom.js";

const SHOWN_MS = 9000; // a failure stays until it is dismissed

/**
 * Say a sentence to a screen reader only.
 * @param {string} sentence
 */
export function say(sentence) {
  const spoken = $("#spoken");
  if (spoken) spoken.textContent = sentence;
}

/**
 * Show a sentence in the corner.
 * @param {string} sentence
 */
export function toast(sentence) {
  const box = element("div", "toast");
  const close = /** @type {HTMLButtonElement} */ (element("button", "", "×"));
  close.type = "button";
  close.dataset.close = "";
  close.setAttribute("aria-label", "Dismiss");
  box.append(element("span", "", sentence), close);
  $("#toasts")?.prepend(box);
  fade(box);
}

/** Let all toasts that are shown now go after a while. */
export function fadeAll() {
  $$(".toast").forEach(fade);
}

/** @param {HTMLElement} box */
function fade(box) {
  if (!box.classList.contains("bad")) setTimeout(() => box.remove(), SHOWN_MS);
}
