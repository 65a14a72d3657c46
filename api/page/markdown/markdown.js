// @ts-check
/** A text in Markdown that is being written: each line is read once, and only the open block is drawn anew. */

import { Blocks, isUndecided } from './blocks.js';
import { Column } from './block_views.js';

const BUDGET_MS = 8; // of a frame's 16

export class MarkdownView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.text = '';
    this.read = 0; // whole lines, up to here
    this.blocks = new Blocks();
    this.column = new Column(root);
  }

  clear() {
    this.root.replaceChildren();
    [this.text, this.read, this.blocks, this.column] = ['', 0, new Blocks(), new Column(this.root)];
  }

  /**
   * Show `text`, as far as there is time in this frame; say whether that was all. What is not decided yet at the end of
   * a text that is `live` waits for what comes next.
   *
   * @param {string} text @param {boolean} live
   */
  show(text, live, budgetMs = BUDGET_MS) {
    if (!text.startsWith(this.text)) this.clear();
    this.text = text;
    const until = performance.now() + budgetMs;
    let end = 0;
    let late = false;
    for (let lines = 0; !late && (end = text.indexOf('\n', this.read)) !== -1; lines++) {
      this.blocks.add(withoutReturn(text.slice(this.read, end)));
      this.read = end + 1;
      if (lines % 8 === 7) {
        this.blocks.mark();
        this.column.sync(this.blocks.root, 'live');
        late = performance.now() > until;
      }
    }
    const back = this.blocks.mark();
    const tail = late ? '' : withoutReturn(text.slice(this.read));
    const shown = tail !== '' && !(live && isUndecided(tail));
    if (shown) this.blocks.add(tail);
    this.column.sync(this.blocks.root, live || late ? 'live' : 'cut');
    if (shown) back();
    return !late;
  }
}

function withoutReturn(/** @type {string} */ line) {
  return line.endsWith('\r') ? line.slice(0, -1) : line;
}
