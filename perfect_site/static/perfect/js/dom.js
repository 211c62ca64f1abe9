// @ts-check
// Short names for what each module does with the page.

/**
 * The first element that the selector finds.
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement | null}
 */
export const $ = (selector, root = document) => root.querySelector(selector);

/**
 * All elements that the selector finds, as an array. SVG elements among them have what we use of them, too.
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {HTMLElement[]}
 */
export const $$ = (selector, root = document) => {
  return [.../** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(selector))];
};

/**
 * The element around an event's target that the selector finds.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function around(event, selector) {
  return event.target instanceof Element ? event.target.closest(selector) : null;
}

/**
 * A new element with a class and a text.
 * @param {string} tag
 * @param {string} className
 * @param {string | number} [text]
 * @returns {HTMLElement}
 */
export function element(tag, className, text = "") {
  const el = document.createElement(tag);
  el.className = className;
  el.textContent = String(text);
  return el;
}

/**
 * Write a text where another one stands: a text that is written again would end the reader's selection.
 * @param {Element} el
 * @param {string} text
 */
export function write(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

/**
 * The content of a piece of HTML that our server sent.
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function parsed(html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  return box.content;
}
