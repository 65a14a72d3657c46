// @ts-check
/** The scrolled log of a chat. Text from people and models only ever becomes text nodes, never markup. */

import { AnswerView } from './answer_view.js';
import { element } from './elements.js';

const BOTTOM_PX = 48; // still "at the bottom", a line or two above it

/** The scrolled log of all turns: draws what has changed once a frame, and follows the end only if the reader does. */
export class Log {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    /** @type {Set<AnswerView>} */ this.changed = new Set();
    this.following = true;
    new ResizeObserver(() => this.following && this.toEnd()).observe(root);
    root.addEventListener('scroll', () => (this.following = this.atEnd()), { passive: true });
  }

  atEnd() {
    return this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < BOTTOM_PX;
  }

  toEnd() {
    this.root.scrollTop = this.root.scrollHeight;
    this.following = true;
  }

  clear() {
    for (const turn of this.root.querySelectorAll('.turn')) turn.remove();
    this.changed.clear();
  }

  addQuestion(/** @type {string} */ text) {
    const turn = element('article', 'turn question', element('p', 'text', text));
    turn.setAttribute('aria-label', 'You');
    this.root.append(turn);
  }

  /** @param {import('./answer.js').Answer} answer @param {import('./conversation.js').Conversation} chat @param {() => void} retry */
  addAnswer(answer, chat, retry) {
    const view = new AnswerView(answer, chat, retry);
    if (!view.draw()) this.change(view);
    this.root.append(view.root);
    return view;
  }

  /** Draw `view` with the next frame. */
  change(/** @type {AnswerView} */ view) {
    if (this.changed.size === 0) requestAnimationFrame(() => this.drawAll());
    this.changed.add(view);
  }

  drawAll() {
    const following = this.following || this.atEnd();
    const late = [...this.changed].filter((view) => !view.draw());
    this.changed.clear();
    if (following) this.toEnd();
    for (const view of late) this.change(view);
  }
}
