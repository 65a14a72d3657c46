// @ts-check
/** A paragraph's nodes: made of text and of elements that are named here, never of markup. */

import { parseInline, settledUpTo } from './inline.js';

/** @typedef {import('./inline.js').Inline} Inline */
/** @typedef {import('./inline.js').End} End */

const PIECE = 4000; // a paragraph that grows is read anew each time: what is further back is left alone
const LONGEST_PIECE = 4 * PIECE; // emphasis that is open for longer is none

export class InlineView {
  /** @param {Element} root */
  constructor(root) {
    this.root = root;
    this.text = '';
    this.settled = 0; // characters, drawn for good
    this.nodes = 0; // pieces that they are drawn as
    /** @type {Inline[]} behind them */ this.drawn = [];
  }

  /** Show `text`. What it has in common with the text before is not touched. */
  show(/** @type {string} */ text, /** @type {End} */ end) {
    if (!text.startsWith(this.text.slice(0, this.settled))) {
      this.root.replaceChildren();
      [this.settled, this.nodes, this.drawn] = [0, 0, []];
    }
    this.text = text;
    while (text.length - this.settled > PIECE && this.settle(text));
    this.draw(parseInline(text.slice(this.settled), end));
  }

  /** Draw for good what nothing later can change; say whether there was enough of it. */
  settle(/** @type {string} */ text) {
    const piece = text.slice(this.settled, this.settled + LONGEST_PIECE);
    const length =
      settledUpTo(piece.slice(0, PIECE)) || settledUpTo(piece) || (piece.length < LONGEST_PIECE ? 0 : piece.length);
    if (length === 0) return false;
    // In a block of its own: a paragraph is laid out anew with each character.
    const settled = document.createElement('span');
    settled.className = 'piece';
    patch(settled, 0, [], parseInline(piece.slice(0, length), 'whole'));
    this.draw([]);
    this.root.append(settled);
    this.nodes++;
    this.settled += length;
    return true;
  }

  draw(/** @type {Inline[]} */ nodes) {
    patch(this.root, this.nodes, this.drawn, nodes);
    this.drawn = nodes;
  }
}

/**
 * Make the nodes of `parent` from number `from` on, drawn from `old`, be those of `fresh`.
 *
 * @param {Element} parent @param {number} from @param {Inline[]} old @param {Inline[]} fresh
 */
function patch(parent, from, old, fresh) {
  fresh.forEach((node, at) => {
    const before = old[at];
    const shown = parent.childNodes[from + at];
    if (before === undefined || shown === undefined) parent.append(make(node));
    else if (typeof node === 'string' && typeof before === 'string') {
      if (node === before) return;
      if (node.startsWith(before)) /** @type {Text} */ (shown).appendData(node.slice(before.length));
      else /** @type {Text} */ (shown).data = node;
    } else if (
      typeof node !== 'string' &&
      typeof before !== 'string' &&
      node.tag === before.tag &&
      node.href === before.href
    ) {
      patch(/** @type {Element} */ (shown), 0, before.children, node.children);
    } else shown.replaceWith(make(node));
  });
  while (parent.childNodes.length > from + fresh.length) parent.lastChild?.remove();
}

/** @param {Inline} node @returns {Node} */
function make(node) {
  if (typeof node === 'string') return document.createTextNode(node);
  const made = document.createElement(node.tag === 'control' ? 'span' : node.tag);
  if (node.tag === 'control') made.className = 'control';
  if (made instanceof HTMLAnchorElement) {
    made.href = made.title = node.href;
    made.rel = 'noopener noreferrer nofollow';
    made.target = '_blank';
  }
  for (const child of node.children) made.append(make(child));
  return made;
}
