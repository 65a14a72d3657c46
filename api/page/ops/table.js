// @ts-check
/**
 * A table that is brought up to date row by row, and that holds still under those who read it: while the pointer, the
 * focus or a selection is in it, what has ended stays where it is, marked, and what is new comes behind all others.
 *
 * @typedef {object} Column
 * @property {string} title
 * @property {string} [className]  `number` for figures
 * @typedef {{key: string, cells: (string | Node)[], className?: string}} Row  a row's key stays the same; its first cell is its name
 */

import { element, setText } from './../elements.js';

const MOST_GONE = 200; // rows that are kept for somebody who has left the pointer there

export class Table {
  /** @param {HTMLTableElement} root @param {string} caption @param {Column[]} columns */
  constructor(root, caption, columns) {
    this.root = root;
    this.columns = columns;
    /** @type {Map<string, HTMLTableRowElement>} */ this.rows = new Map();
    const titles = columns.map(({ title, className }) => {
      const cell = element('th', className ?? '', title);
      cell.setAttribute('scope', 'col');
      return cell;
    });
    this.body = document.createElement('tbody');
    root.replaceChildren(element('caption', 'unseen', caption), element('thead', '', element('tr', '', ...titles)), this.body);
    root.addEventListener('pointerleave', () => this.settle());
    root.addEventListener('focusout', () => setTimeout(() => this.settle()));
    /** @type {string[]} */ this.order = [];
  }

  /** Show these rows and no others. @param {Row[]} rows */
  show(rows) {
    this.order = rows.map(({ key }) => key);
    for (const row of rows) {
      const shown = this.rows.get(row.key) ?? this.add(row.key);
      shown.className = row.className ?? '';
      row.cells.forEach((cell, at) => {
        const target = /** @type {HTMLElement} */ (shown.cells[at]);
        if (typeof cell === 'string') setText(target, cell);
        else if (target.firstChild !== cell) target.replaceChildren(cell);
      });
    }
    const here = new Set(this.order);
    for (const [key, shown] of this.rows) {
      if (here.has(key)) continue;
      shown.className = 'gone';
      for (const button of shown.querySelectorAll('button')) button.disabled = true;
    }
    if (!this.isRead || this.rows.size > rows.length + MOST_GONE) this.tidy();
    const none = this.rows.size === 0;
    const frame = /** @type {HTMLElement} */ (this.root.parentElement);
    frame.hidden = none;
    const words = frame.previousElementSibling;
    if (words instanceof HTMLElement && words.matches('.nothing')) words.hidden = !none;
  }

  /** @param {string} key */
  add(key) {
    const row = document.createElement('tr');
    this.columns.forEach(({ className }, at) => {
      const cell = element(at === 0 ? 'th' : 'td', className ?? '');
      if (at === 0) cell.setAttribute('scope', 'row');
      row.append(cell);
    });
    this.body.append(row);
    this.rows.set(key, row);
    return row;
  }

  /** Whether somebody may be reading just here. */
  get isRead() {
    const selection = getSelection();
    const selected = selection !== null && !selection.isCollapsed && selection.containsNode(this.root, true);
    return selected || this.root.matches(':hover') || this.body.contains(document.activeElement);
  }

  settle() {
    if (!this.isRead) this.tidy();
  }

  /** Drop what is gone, and have the rest in order. */
  tidy() {
    const here = new Set(this.order);
    for (const [key, row] of this.rows) {
      if (here.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    this.order.forEach((key, at) => {
      const row = /** @type {HTMLTableRowElement} */ (this.rows.get(key));
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
    });
  }
}
