// @ts-check
/** One chat: its turns, and the job that writes its last answer. No DOM. */

import { apply, applyFigures, applyJob, giveUp, isLive, newAnswer } from './answer.js';
import { Refused, backoffMs } from './rejoin.js';
import { loadTurns, saveTurns } from './store.js';

/** @typedef {import('./answer.js').Answer} Answer */
/** @typedef {import('./store.js').Turn} Turn */

/**
 * @typedef {object} Listener
 * @property {(chat: Conversation, answer: Answer) => void} changed  there is more of the answer
 * @property {(chat: Conversation, answer: Answer) => void} settled  it has ended
 * @property {(chat: Conversation, answer: Answer, words: string) => void} said  worth telling who does not see it
 * @property {(refused: Refused) => void} keyWanted
 */

/** 128 random bits. (`crypto.randomUUID` is missing where the page is served over plain HTTP.) */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Conversation {
  /** @param {string} id @param {import('./rejoin.js').Rejoin} rejoin @param {Listener} listener */
  constructor(id, rejoin, listener) {
    this.id = id;
    this.rejoin = rejoin;
    this.listener = listener;
    this.turns = loadTurns(id);
    this.connected = true;
    this.rejoined = ''; // the answer that was begun on an earlier visit
    this.leaving = false;
    /** @type {{wake: () => void} | null} */ this.subscription = null;
    this.reading = new AbortController();
  }

  get last() {
    const turn = this.turns.at(-1);
    return turn?.role === 'assistant' ? turn : null;
  }

  /** The answer that is being written. */
  get live() {
    const answer = this.last;
    return answer && isLive(answer) ? answer : null;
  }

  save(used = false) {
    saveTurns(this.id, this.turns, used);
  }

  /** Take the turns as another tab has left them; say whether they are others. */
  reload() {
    const theirs = loadTurns(this.id);
    if (shape(theirs) === shape(this.turns)) return false;
    this.turns = theirs;
    this.resume();
    return true;
  }

  ask(/** @type {string} */ text, /** @type {string} */ model) {
    this.turns.push({ id: randomId(), role: 'user', text });
    return this.begin(newAnswer(randomId(), model));
  }

  /** Replace the last answer by another try. */
  askAgain(/** @type {string} */ model) {
    const failed = /** @type {Answer} */ (this.turns.pop());
    // Where no job is known of, the same key finds the one that may exist all the same.
    const same = failed.job === null && failed.model === model;
    return this.begin(newAnswer(same ? failed.id : randomId(), model));
  }

  begin(/** @type {Answer} */ answer) {
    this.turns.push(answer);
    this.save(true);
    this.post(answer);
    return answer;
  }

  /** Go on with what was under way on an earlier visit: read behind the cursor, or submit what may not have arrived. */
  resume() {
    this.reading.abort();
    const answer = this.live;
    if (!answer) return;
    if (answer.job === null) return this.post(answer);
    this.rejoined = answer.id;
    this.read(answer, answer.job);
    if (answer.stopping) this.requestCancel(answer);
  }

  /** Submit an answer's job; its key makes it harmless to do so again. */
  async post(/** @type {Answer} */ answer) {
    const slash = answer.model.indexOf('/'); // a model's name may hold further ones
    const [provider, model] = [answer.model.slice(0, slash), answer.model.slice(slash + 1)];
    const request = { provider, model, messages: this.messagesBefore(answer) };
    const posted = await this.rejoin.submit(request, { idempotencyKey: answer.id }).catch((error) => error);
    // By now another tab may have caused a new object for this answer, or the chat is deleted.
    const current = this.turns.find((turn) => turn.id === answer.id);
    const dropped = current?.role !== 'assistant';
    if (posted instanceof Error) {
      if (dropped || this.leaving) return;
      giveUp(
        current,
        'failed',
        posted instanceof Refused ? posted.message : 'The server cannot be reached.',
        isPassing(posted),
      );
      if (posted instanceof Refused && posted.code === 'unauthorized') this.listener.keyWanted(posted);
      return this.settle(current);
    }
    const job = { id: posted.id };
    if (dropped) return this.requestCancel({ ...answer, job });
    current.job = job;
    this.save();
    this.read(current, posted);
    if (current.stopping) this.requestCancel(current);
  }

  messagesBefore(/** @type {Answer} */ answer) {
    const messages = [];
    for (const turn of this.turns) {
      if (turn.id === answer.id) break;
      if (turn.role === 'user') messages.push({ role: 'user', content: turn.text });
      else if (turn.status !== 'failed' && turn.text !== '') messages.push({ role: 'assistant', content: turn.text });
    }
    return messages;
  }

  /** Read a job's events into its answer, to the last one. */
  async read(/** @type {Answer} */ answer, /** @type {import('./rejoin.js').Job} */ job) {
    this.reading.abort();
    const { signal } = (this.reading = new AbortController());
    const onConnection = (/** @type {boolean} */ connected) => {
      this.connected = connected;
      this.listener.changed(this, answer);
    };
    const renew = () => this.rejoin.job(job);
    try {
      const events = this.rejoin.subscribe(job, { after: answer.cursor, signal, onConnection, renew });
      this.subscription = events;
      for await (const event of events) {
        apply(answer, event);
        if (event.event === 'started') this.listener.said(this, answer, `${answer.model} is answering.`);
        if (event.event === 'restarted') this.listener.said(this, answer, answer.notice);
        if (isLive(answer)) this.listener.changed(this, answer);
      }
      if (signal.aborted) return;
      if (isLive(answer)) applyJob(answer, await this.rejoin.job(job)); // there was nothing behind the cursor
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused) || error.passing)
        return void setTimeout(() => signal.aborted || this.read(answer, job), backoffMs(2, error));
      if (error.code === 'unauthorized') return this.listener.keyWanted(error);
      const why = error.status === 404 ? 'The server does not keep this answer any more.' : error.message;
      giveUp(answer, 'lost', answer.text === '' ? why : `${why} This is what had arrived.`);
    }
    this.settle(answer);
  }

  /** The network is there again, or somebody looks: come back, should the connection be dead. */
  wake() {
    if (this.live) this.subscription?.wake();
  }

  /** An answer has ended, one way or another: keep it, with the figures that its last event did not bring. */
  async settle(/** @type {Answer} */ answer) {
    this.save();
    this.listener.settled(this, answer);
    if (!answer.job || answer.status === 'lost') return;
    try {
      applyFigures(answer, await this.rejoin.job(answer.job));
      this.save();
      this.listener.changed(this, answer);
    } catch {
      // The answer is all there; only figures are missing.
    }
  }

  stop() {
    const answer = this.live;
    if (!answer || answer.stopping) return;
    answer.stopping = true;
    this.save();
    if (answer.job) this.requestCancel(answer); // else as soon as the job is known
  }

  /** Ask for the end until the server has heard it; the job's last event then tells that it came. */
  async requestCancel(/** @type {Answer} */ answer) {
    for (let tries = 0; answer.job && isLive(answer); tries++) {
      try {
        await this.rejoin.cancel(answer.job);
        return;
      } catch (error) {
        if (!isPassing(error)) {
          answer.stopping = false;
          return this.listener.changed(this, answer);
        }
        await new Promise((resolve) => setTimeout(resolve, backoffMs(tries, error)));
      }
    }
  }

  /** Forget all; what still runs is stopped, as nobody could read it any more. */
  drop() {
    const answer = this.live;
    this.reading.abort();
    this.turns = [];
    if (answer?.job) this.requestCancel(answer);
  }
}

function isPassing(/** @type {unknown} */ error) {
  return !(error instanceof Refused) || error.passing;
}

/** What another tab must have changed for this one to begin anew: not the text, which each tab reads by itself. */
function shape(/** @type {Turn[]} */ turns) {
  return turns.map((turn) => `${turn.id} ${turn.role === 'assistant' ? (turn.job?.id ?? turn.status) : ''}`).join();
}
