// @ts-check
/** Elements, and as few changes to them as will do. */

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(Node | string)} children
 */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function setText(/** @type {Element} */ target, /** @type {string} */ text) {
  if (target.textContent !== text) target.textContent = text;
}

export function show(/** @type {HTMLElement} */ target, /** @type {string} */ text) {
  target.hidden = text === '';
  setText(target, text);
}

/** Have `child` in the document or not; in a log, hidden words would still be words. */
export function attach(
  /** @type {HTMLElement} */ child,
  /** @type {boolean} */ wanted,
  /** @type {() => void} */ insert,
) {
  if (!wanted) child.remove();
  else if (child.parentNode === null) insert();
}
