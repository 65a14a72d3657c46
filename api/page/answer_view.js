// @ts-check
/** One answer as it is seen: who gives it, what became of it, its text, its figures. */

import { isLive } from './answer.js';
import { copyButton } from './clipboard.js';
import { attach, element, setText, show } from './elements.js';
import { grow } from './markdown/block_views.js';
import { MarkdownView } from './markdown/markdown.js';

/** @typedef {import('./answer.js').Answer} Answer */

/** One answer in the log. */
export class AnswerView {
  /** @param {Answer} answer @param {import('./conversation.js').Conversation} chat @param {() => void} retry */
  constructor(answer, chat, retry) {
    this.answer = answer;
    this.chat = chat;
    this.retryable = false;
    this.thought = ''; // as far as it is drawn

    this.model = element('h2', 'model');
    this.notice = element('p', 'notice');
    this.reasoning = element('div', 'text');
    this.reasoningBox = element('details', 'reasoning', element('summary', '', 'Reasoning'), this.reasoning);
    this.text = element('div', 'markdown');
    this.markdown = new MarkdownView(this.text);
    this.toolCalls = element('div', 'tool-calls');
    this.error = element('p', 'error');
    this.status = element('span', 'status');
    this.figures = element('span', 'figures');
    this.link = /** @type {HTMLAnchorElement} */ (element('a', 'job'));
    this.link.title = "The job's record, as the API gives it";
    this.retry = /** @type {HTMLButtonElement} */ (element('button', 'retry', 'Try again'));
    this.retry.type = 'button';
    this.retry.addEventListener('click', retry);
    this.copy = copyButton('Copy answer', () => this.answer.text);
    this.footer = element('footer', '', this.status, this.figures, this.link);
    this.root = element('article', 'turn answer', this.model, this.notice, this.text);
    this.root.append(this.toolCalls, this.error, this.footer);
  }

  /** Show the answer as it is now, as far as there is time; say whether that was all. */
  draw() {
    const { answer } = this;
    const live = isLive(answer);
    this.root.dataset.status = answer.status;
    this.root.classList.toggle('live', live);
    this.root.ariaBusy = String(live);
    setText(this.model, answer.model);
    this.root.ariaLabel = `Answer from ${answer.model}`;
    show(this.notice, answer.notice);
    grow(this.reasoning, this.thought, answer.reasoning);
    this.thought = answer.reasoning;
    attach(this.reasoningBox, answer.reasoning !== '', () => this.text.before(this.reasoningBox));
    const all = this.markdown.show(answer.text, live);
    this.drawToolCalls();
    show(this.error, answer.error?.message ?? '');
    setText(this.status, this.statusText());
    setText(this.figures, figures(answer));
    this.link.hidden = answer.job === null || answer.status === 'lost';
    if (answer.job) {
      if (this.chat.rejoin.key === null) this.link.href = `/v1/jobs/${answer.job.id}`;
      else this.link.removeAttribute('href'); // a click sends no key
      setText(this.link, answer.job.id);
    }
    attach(this.copy, !live && answer.text !== '', () => this.link.after(this.copy));
    attach(this.retry, this.retryable, () => this.footer.append(this.retry));
    return all;
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
      if (!this.chat.connected) return 'Connection lost; the answer goes on without us. Reconnecting…';
      if (answer.stopping) return 'Stopping…';
    }
    switch (answer.status) {
      case 'sending':
        return 'Sending…';
      case 'queued':
        return (
          (answer.position > 1 ? `Queued, position ${answer.position}` : 'Queued, next in line') +
          (WAITS[answer.reason] ?? '')
        );
      case 'running':
        if (answer.text === '' && answer.reasoning === '') return 'Waiting for the first token…';
        return this.chat.rejoined === answer.id ? 'Rejoined, answering…' : 'Answering…';
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
  if (answer.waitMs !== null) parts.push(`queued ${seconds(answer.waitMs)}`);
  if (answer.ttftMs !== null) parts.push(`first token ${seconds(answer.ttftMs)}`);
  if (answer.usage) {
    const { output_tokens: tokens, estimated } = answer.usage;
    parts.push(`${estimated ? '≈ ' : ''}${tokens.toLocaleString('en')} ${tokens === 1 ? 'token' : 'tokens'}`);
  }
  if (answer.tokensPerS !== null) parts.push(`${answer.tokensPerS.toFixed(answer.tokensPerS < 10 ? 1 : 0)} tokens/s`);
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
