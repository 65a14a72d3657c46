// @ts-check
/**
 * A text's blocks as elements. A view is synced with its block, and touches only what is not settled.
 *
 * @typedef {import('./blocks.js').Block} Block
 * @typedef {import('./inline.js').End} End
 * @typedef {{element: HTMLElement, block: Block, sync: (block: Block, end: End) => void}} View
 */

import { copyButton } from '../clipboard.js';
import { element } from '../elements.js';
import { controls } from './inline.js';
import { InlineView } from './inline_view.js';

const PIECE = 4096; // a text that grows is laid out anew each time: what is further back is left alone

/** Blocks one below the other. */
export class Column {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {View[]} */ this.views = [];
    this.settled = 0;
  }

  /** Show the children of `block`, the last of which ends as `end` says. */
  sync(/** @type {Block} */ block, /** @type {End} */ end) {
    const { children } = block;
    for (let at = this.settled; at < children.length; at++) {
      const child = children[at];
      let view = this.views[at];
      if (!view || !fits(view.block, child)) {
        const fresh = newView(child);
        if (view) view.element.replaceWith(fresh.element);
        else this.root.append(fresh.element);
        this.views[at] = view = fresh;
      }
      view.block = child;
      view.sync(child, at === children.length - 1 && at >= block.settled ? end : 'whole');
    }
    while (this.views.length > children.length) this.views.pop()?.element.remove();
    this.settled = Math.max(this.settled, block.settled);
  }
}

function fits(/** @type {Block} */ one, /** @type {Block} */ other) {
  const same = one.type === other.type && one.marker === other.marker && one.language === other.language;
  return same && (one.number === other.number || one.type === 'item');
}

/** @returns {View} */
function newView(/** @type {Block} */ block) {
  switch (block.type) {
    case 'paragraph':
    case 'heading':
      return textView(block);
    case 'code':
      return codeView(block);
    case 'table':
      return tableView(block);
    case 'rule':
      return { block, element: element('hr', ''), sync() {} };
    default:
      return columnView(block);
  }
}

/** @returns {View} */
function textView(/** @type {Block} */ block) {
  // The page's own headings, and the answer's, are above those of the answer's text.
  const tag = block.type === 'heading' ? `h${Math.min(6, block.number + 2)}` : 'p';
  const made = element(tag, block.type === 'heading' ? `level-${block.number}` : '');
  made.dir = 'auto';
  const inline = new InlineView(made);
  const sync = (/** @type {Block} */ { type, text }, /** @type {End} */ end) => {
    const mayBeTable = end === 'live' && type === 'paragraph' && text.startsWith('|') && !text.includes('\n');
    inline.show(mayBeTable ? '' : text, end);
  };
  return { block, element: made, sync };
}

/** @returns {View} */
function columnView(/** @type {Block} */ block) {
  const tag =
    block.type === 'quote' ? 'blockquote' : block.type === 'item' ? 'li' : /[.)]/.test(block.marker) ? 'ol' : 'ul';
  const made = element(tag, '');
  if (made instanceof HTMLOListElement && block.number !== 1) made.start = block.number;
  const column = new Column(made);
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.disabled = true;
  const sync = (/** @type {Block} */ fresh, /** @type {End} */ end) => {
    const isTask = fresh.type === 'item' && fresh.task !== null;
    if (isTask && box.parentNode === null) made.prepend(box);
    else if (!isTask && box.parentNode !== null) box.remove();
    if (isTask) made.className = 'task';
    box.checked = fresh.task === true;
    box.ariaLabel = fresh.task ? 'Done' : 'To do';
    column.sync(fresh, end);
  };
  return { block, element: made, sync };
}

/** @returns {View} */
function codeView(/** @type {Block} */ block) {
  const code = element('code', '');
  const pre = element('pre', '', code);
  pre.tabIndex = 0; // may be wider than the window
  pre.role = 'group';
  pre.ariaLabel = block.language ? `Code, ${block.language}` : 'Code';
  let text = '';
  const language = element('span', 'language');
  language.textContent = block.language;
  const bar = element(
    'div',
    'bar',
    language,
    copyButton('Copy code', () => text),
  );
  const sync = (/** @type {Block} */ fresh) => {
    grow(code, text, fresh.text);
    text = fresh.text;
  };
  return { block, element: element('div', 'code', bar, pre), sync };
}

/** @returns {View} */
function tableView(/** @type {Block} */ block) {
  const head = element('thead', '');
  const body = element('tbody', '');
  const made = element('div', 'table', element('table', '', head, body));
  made.tabIndex = 0; // may be wider than the window
  made.role = 'group';
  made.ariaLabel = 'Table';
  /** @type {InlineView[][]} */ const rows = [];
  let settled = 0;
  const sync = (/** @type {Block} */ { rows: fresh, align, settled: done }, /** @type {End} */ end) => {
    for (let at = settled; at < fresh.length; at++) {
      const views = (rows[at] ??= newRow(at ? body : head, at ? 'td' : 'th', align));
      const ends = at >= done && at === fresh.length - 1 ? end : 'whole';
      views.forEach((view, column) =>
        view.show(fresh[at][column] ?? '', column === fresh[at].length - 1 ? ends : 'whole'),
      );
    }
    for (; rows.length > fresh.length; rows.pop()) body.lastChild?.remove();
    settled = Math.max(settled, done);
  };
  return { block, element: made, sync };
}

function newRow(/** @type {Element} */ part, /** @type {string} */ tag, /** @type {string[]} */ align) {
  const cells = align.map((side) => element(tag, side));
  for (const cell of cells) cell.dir = 'auto';
  part.append(element('tr', '', ...cells));
  return cells.map((cell) => new InlineView(cell));
}

/** Make `target` show `text` in the place of `before`; what only grew is appended. */
export function grow(/** @type {Element} */ target, /** @type {string} */ before, /** @type {string} */ text) {
  if (text === before) return;
  if (!text.startsWith(before)) {
    target.replaceChildren();
    return grow(target, '', text);
  }
  for (let at = before.length; at < text.length;) {
    let piece = target.lastElementChild;
    const length = Number(piece?.getAttribute('data-length'));
    if (!piece || (length >= PIECE && text[at - 1] === '\n')) target.append((piece = element('span', 'piece')));
    const line = text.indexOf('\n', at + PIECE);
    const end = line === -1 ? text.length : line + 1;
    for (const part of controls(text.slice(at, end))) {
      if (typeof part !== 'string') piece.append(element('span', 'control', `${part.children[0]}`));
      else if (piece.lastChild instanceof Text) piece.lastChild.appendData(part);
      else piece.append(part);
    }
    piece.setAttribute('data-length', `${(piece.textContent ?? '').length}`);
    at = end;
  }
}
