// @ts-check
// What can be clicked on any page: the theme, copying, menus, the sheet of keys.
import { $, $$, around } from "./dom.js";
import { toast } from "./toasts.js";

export function start() {
  showTheme();
  document.addEventListener("click", clicked);
}

/** @param {MouseEvent} event */
function clicked(event) {
  const setter = around(event, "[data-theme-set]");
  if (setter) setTheme(setter.dataset.themeSet ?? "auto");
  const copier = around(event, "[data-copy]");
  if (copier) copy($(copier.dataset.copy ?? "")?.textContent ?? "");
  around(event, "[data-close]")?.closest(".toast")?.remove();
  if (around(event, "[data-sheet]")) showSheet();
  for (const menu of openMenus()) {
    if (!menu.contains(/** @type {Node} */ (event.target)) || around(event, ".item")) menu.open = false;
  }
}

/** Show the keys, where the page has the sheet. */
export function showSheet() {
  /** @type {HTMLDialogElement | null} */ ($("#sheet"))?.showModal();
}

export function closeMenus() {
  for (const menu of openMenus()) menu.open = false;
}

/** @returns {HTMLDetailsElement[]} */
const openMenus = () => /** @type {HTMLDetailsElement[]} */ ($$("details.menu[open]"));

/** @param {string} choice */
function setTheme(choice) {
  localStorage.setItem("theme", choice);
  document.documentElement.dataset.theme = choice;
  showTheme();
}

function showTheme() {
  const { theme } = document.documentElement.dataset;
  for (const button of $$("[data-theme-set]")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeSet === theme));
  }
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyByHand(text);
  }
  toast("Copied.");
}

/**
 * There is no clipboard on plain http: the old way.
 * @param {string} text
 */
function copyByHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
