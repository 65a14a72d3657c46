// @ts-check
/** What is seen. Text from people and models only ever becomes text nodes, never markup. */

import { isLive } from './answer.js';

/** @typedef {import('./answer.js').Answer} Answer */

const NODE_CHARS = 4096; // a text node that grows is shaped anew each frame: longer ones are left alone
const BOTTOM_PX = 48; // still "at the bottom", a line or two above it

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(Node | string)} children
 */
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

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

  addAnswer(/** @type {Answer} */ answer, /** @type {() => void} */ retry) {
    const view = new AnswerView(answer, retry);
    view.draw();
    this.root.append(view.root);
    return view;
  }

  /** Draw `view` with the next frame. */
  change(/** @type {AnswerView} */ view) {
    if (this.changed.size === 0) requestAnimationFrame(() => this.drawAll());
    this.changed.add(view);
  }

  drawAll() {
    const following = this.atEnd();
    for (const view of this.changed) view.draw();
    this.changed.clear();
    if (following) this.toEnd();
  }
}

/** One answer in the log. */
export class AnswerView {
  /** @param {Answer} answer @param {() => void} retry */
  constructor(answer, retry) {
    this.answer = answer;
    this.connected = true;
    this.rejoined = false;
    this.retryable = false;

    this.model = element('h2', 'model');
    this.notice = element('p', 'notice');
    this.reasoning = element('div', 'text');
    this.reasoningBox = element('details', 'reasoning', element('summary', '', 'Reasoning'), this.reasoning);
    this.text = element('div', 'text');
    this.toolCalls = element('div', 'tool-calls');
    this.error = element('p', 'error');
    this.status = element('span', 'status');
    this.figures = element('span', 'figures');
    this.link = /** @type {HTMLAnchorElement} */ (element('a', 'job'));
    this.link.title = "The job's record, as the API gives it";
    this.retry = /** @type {HTMLButtonElement} */ (element('button', 'retry', 'Try again'));
    this.retry.type = 'button';
    this.retry.addEventListener('click', retry);
    this.footer = element('footer', '', this.status, this.figures, this.link);
    this.root = element('article', 'turn answer', this.model, this.notice, this.text);
    this.root.append(this.toolCalls, this.error, this.footer);
  }

  draw() {
    const { answer } = this;
    this.root.dataset.status = answer.status;
    this.root.classList.toggle('live', isLive(answer));
    this.root.ariaBusy = String(isLive(answer));
    setText(this.model, answer.model);
    this.root.ariaLabel = `Answer from ${answer.model}`;
    show(this.notice, answer.notice);
    grow(this.reasoning, answer.reasoning);
    attach(this.reasoningBox, answer.reasoning !== '', () => this.text.before(this.reasoningBox));
    grow(this.text, answer.text);
    this.drawToolCalls();
    show(this.error, answer.error?.message ?? '');
    setText(this.status, this.statusText());
    setText(this.figures, figures(answer));
    this.link.hidden = answer.job === null || answer.status === 'lost';
    if (answer.job) {
      this.link.href = `/v1/jobs/${answer.job.id}`;
      setText(this.link, answer.job.id);
    }
    attach(this.retry, this.retryable, () => this.footer.append(this.retry));
  }

  drawToolCalls() {
    const { toolCalls } = this.answer;
    while (this.toolCalls.childElementCount > toolCalls.length) this.toolCalls.lastElementChild?.remove();
    toolCalls.forEach((call, at) => {
      const box =
        this.toolCalls.children[at] ??
        this.toolCalls.appendChild(element('section', '', element('h3', ''), element('pre', '')));
      setText(box.children[0], `Tool call: ${call.name ?? 'unnamed'}`);
      setText(box.children[1], call.arguments);
    });
  }

  statusText() {
    const { answer } = this;
    if (isLive(answer)) {
      if (!this.connected) return 'Connection lost; the answer goes on without us. Reconnecting…';
      if (answer.stopping) return 'Stopping…';
    }
    switch (answer.status) {
      case 'sending':
        return 'Sending…';
      case 'queued':
        return (answer.position > 1 ? `Queued, position ${answer.position}` : 'Queued, next in line') + (WAITS[answer.reason] ?? '');
      case 'running':
        if (answer.text === '' && answer.reasoning === '') return 'Waiting for the first token…';
        return this.rejoined ? 'Rejoined, answering…' : 'Answering…';
      case 'completed':
        return COMPLETED[answer.finishReason ?? 'stop'] ?? `Completed (${answer.finishReason})`;
      case 'failed':
        return answer.error?.retryable ? 'Failed; another try may work' : 'Failed; another try would fail too';
      case 'cancelled':
        return 'Stopped';
      case 'lost':
        return 'No longer available';
    }
  }
}

/** @type {Readonly<Record<string, string>>} */
const WAITS = {
  concurrency: ': the model is busy',
  requests_per_minute: ': the model has had its requests of this minute',
  tokens_per_minute: ': the model has had its tokens of this minute',
  rate_limited: ': the provider is limiting requests',
};

/** @type {Readonly<Record<string, string>>} */
const COMPLETED = {
  stop: 'Completed',
  length: 'Completed (length: cut off at the limit of tokens)',
  tool_calls: 'Completed (tool_calls: the model asks for a tool)',
  content_filter: "Completed (content_filter: held back by the provider's filter)",
};

function figures(/** @type {Answer} */ answer) {
  const parts = [];
  if (answer.ttftMs !== null) parts.push(`first token ${seconds(answer.ttftMs)}`);
  if (answer.usage) {
    const { output_tokens: tokens, estimated } = answer.usage;
    parts.push(`${estimated ? '≈ ' : ''}${tokens.toLocaleString('en')} ${tokens === 1 ? 'token' : 'tokens'}`);
  }
  if (answer.durationMs !== null) parts.push(`total ${seconds(answer.durationMs)}`);
  if (answer.costUsd) parts.push(answer.costUsd < 0.0001 ? '< $0.0001' : `$${Number(answer.costUsd.toPrecision(2))}`);
  if (!isLive(answer) && answer.attempt > 0) {
    parts.push(`${answer.attempt} ${answer.attempt === 1 ? 'attempt' : 'attempts'}`);
  } else if (answer.attempt > 1) parts.push(`attempt ${answer.attempt}`);
  return parts.map((part) => part.replaceAll(' ', '\u00a0')).join(' · '); // a line breaks between parts only
}

function seconds(/** @type {number} */ ms) {
  return ms < 10_000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`;
}

function setText(/** @type {Element} */ target, /** @type {string} */ text) {
  if (target.textContent !== text) target.textContent = text;
}

function show(/** @type {HTMLElement} */ target, /** @type {string} */ text) {
  target.hidden = text === '';
  setText(target, text);
}

/** Have `child` in the document or not; in a log, hidden words would still be words. */
function attach(/** @type {HTMLElement} */ child, /** @type {boolean} */ wanted, /** @type {() => void} */ insert) {
  if (!wanted) child.remove();
  else if (child.parentNode === null) insert();
}

/** What each element shows, to tell whether its new text only goes on from there. */
const shown = new WeakMap();

/** Make `target` show `text`; text that only grew is appended, so that a long answer costs no more than a short one. */
function grow(/** @type {HTMLElement} */ target, /** @type {string} */ text) {
  const before = shown.get(target) ?? '';
  if (text === before) return;
  shown.set(target, text);
  if (!text.startsWith(before)) {
    target.textContent = text;
    return;
  }
  const piece = text.slice(before.length);
  const last = target.lastChild;
  if (last instanceof Text && (last.length < NODE_CHARS || !last.data.endsWith('\n'))) last.appendData(piece);
  else target.append(piece);
}
