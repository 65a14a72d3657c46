// @ts-check
/** The page: what its controls do, and which job they are about. */

import { apply, applyFigures, applyJob, giveUp, isLive, newAnswer } from './answer.js';
import { Refused, backoffMs, cancel, fetchJob, fetchModels, submit, subscribe } from './client.js';
import { loadModel, loadTurns, onOtherTab, saveModel, saveTurns } from './store.js';
import { Log } from './view.js';

/** @typedef {import('./answer.js').Answer} Answer */
/** @typedef {import('./view.js').AnswerView} AnswerView */

const find = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
/** @type {HTMLFormElement} */ const composer = find('composer');
/** @type {HTMLTextAreaElement} */ const prompt = find('prompt');
/** @type {HTMLSelectElement} */ const modelSelect = find('model');
/** @type {HTMLButtonElement} */ const sendButton = find('send');
/** @type {HTMLButtonElement} */ const stopButton = find('stop');
/** @type {HTMLButtonElement} */ const newButton = find('new-chat');
/** @type {HTMLElement} */ const hint = find('hint');
/** @type {HTMLElement} */ const announcer = find('announcer');
const log = new Log(find('log'));

let turns = loadTurns();
/** @type {Map<string, AnswerView>} */ const views = new Map();
let unsubscribe = () => {};
let waitingForModels = false;
let leaving = false;

// --- The conversation ------------------------------------------------------------------------------------------------

/** Show the conversation as it is in `turns`, and go on reading its last answer if that is not finished. */
function showAll() {
  unsubscribe();
  log.clear();
  views.clear();
  turns.forEach(showTurn);
  refresh();
  log.toEnd();
  const answer = liveAnswer();
  if (!answer?.job) return;
  answer.stale = true; // it is read again from the start
  watch(answer, null);
  if (answer.stopping) requestCancel(answer);
}

function showTurn(/** @type {import('./store.js').Turn} */ turn) {
  if (turn.role === 'user') log.addQuestion(turn.text);
  else views.set(turn.id, log.addAnswer(turn, tryAgain));
}

function lastAnswer() {
  const turn = turns.at(-1);
  return turn?.role === 'assistant' ? turn : null;
}

function liveAnswer() {
  const answer = lastAnswer();
  return answer && isLive(answer) ? answer : null;
}

/** Bring buttons and hint in line with the conversation. */
function refresh() {
  const last = lastAnswer();
  const live = liveAnswer();
  if (turns.length > 0) hint.remove();
  else log.root.prepend(hint);
  sendButton.disabled = live !== null;
  const stoppable = live !== null && !live.stopping;
  if (!stoppable && document.activeElement === stopButton) focusPrompt();
  stopButton.disabled = !stoppable;
  for (const [id, view] of views) {
    const retryable =
      id === last?.id && (last.status === 'lost' || (last.status === 'failed' && !!last.error?.retryable));
    if (view.retryable === retryable) continue;
    view.retryable = retryable;
    log.change(view);
  }
}

function draw(/** @type {Answer} */ answer) {
  const view = views.get(answer.id);
  if (view) log.change(view);
}

/** Take the focus from a button that is about to be disabled; on a touch screen that would call up the keyboard. */
function focusPrompt() {
  if (!matchMedia('(pointer: coarse)').matches || document.activeElement?.matches(':focus-visible')) prompt.focus();
}

/** Say what happens to those who do not see it; the log itself is silent, or they would hear each token. */
function announce(/** @type {string} */ text) {
  announcer.textContent = text;
}

// --- Send ------------------------------------------------------------------------------------------------------------

function send() {
  const text = prompt.value;
  if (text.trim() === '' || liveAnswer()) return prompt.focus();
  if (modelSelect.value === '') {
    waitingForModels = true;
    return announce('Waiting for the list of models.');
  }
  prompt.value = '';
  focusPrompt();
  turns.push({ id: randomId(), role: 'user', text });
  showTurn(turns[turns.length - 1]);
  ask(newAnswer(randomId(), modelSelect.value));
}

/** Replace the last answer by another try. */
function tryAgain() {
  const failed = lastAnswer();
  if (!failed || isLive(failed)) return;
  // Where no job is known of, the same key finds the one that may exist all the same.
  const same = failed.job === null && failed.model === modelSelect.value;
  turns.pop();
  views.get(failed.id)?.root.remove();
  views.delete(failed.id);
  focusPrompt();
  ask(newAnswer(same ? failed.id : randomId(), modelSelect.value));
}

function ask(/** @type {Answer} */ answer) {
  turns.push(answer);
  showTurn(answer);
  saveTurns(turns);
  refresh();
  log.toEnd();
  post(answer);
}

/** Submit an answer's job; after a reload in mid-POST again, which the key makes harmless. */
async function post(/** @type {Answer} */ answer) {
  const posted = await submit(answer.model, messagesBefore(answer), answer.id).catch((error) => error);
  // By now another tab may have caused a new object for this answer, or a new chat dropped it.
  const current = turns.find((turn) => turn.id === answer.id);
  const dropped = current?.role !== 'assistant';
  if (posted instanceof Error) {
    if (dropped || leaving) return;
    if (posted instanceof Refused) giveUp(current, 'failed', posted.message, posted.passing);
    else giveUp(current, 'failed', 'The server cannot be reached.');
    return settle(current);
  }
  const job = { id: posted.id, cancel_url: posted.cancel_url };
  if (dropped) return requestCancel({ ...answer, job });
  current.job = job;
  saveTurns(turns);
  watch(current, posted.events_url);
  if (current.stopping) requestCancel(current);
}

function messagesBefore(/** @type {Answer} */ answer) {
  /** @type {import('./client.js').Message[]} */ const messages = [];
  for (const turn of turns) {
    if (turn.id === answer.id) break;
    if (turn.role === 'user') messages.push({ role: 'user', content: turn.text });
    else if (turn.status !== 'failed' && turn.text !== '') messages.push({ role: 'assistant', content: turn.text });
  }
  return messages;
}

/** 128 random bits. (`crypto.randomUUID` is missing where the page is served over plain HTTP.) */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// --- Read ------------------------------------------------------------------------------------------------------------

/** Read a job's events into its answer; `eventsUrl` is null after a reload. */
function watch(/** @type {Answer} */ answer, /** @type {string | null} */ eventsUrl) {
  if (!answer.job) return;
  const view = views.get(answer.id);
  if (view) view.rejoined = eventsUrl === null;
  unsubscribe = subscribe(answer.job.id, eventsUrl, {
    onEvent(name, data) {
      apply(answer, name, data);
      if (name === 'started') announce(`${answer.model} is answering.`);
      if (name === 'restarted') announce(answer.notice);
      if (isLive(answer)) draw(answer);
      else settle(answer);
    },
    onConnection(connected) {
      if (view) view.connected = connected;
      draw(answer);
    },
    onFinished(job) {
      applyJob(answer, job);
      settle(answer);
    },
    onRefused(error) {
      const why = error.status === 404 ? 'The server does not keep this answer any more.' : error.message;
      giveUp(answer, 'lost', answer.text === '' ? why : `${why} This is what had arrived.`);
      settle(answer);
    },
  });
}

/** An answer has ended, one way or another: keep it. */
function settle(/** @type {Answer} */ answer) {
  saveTurns(turns);
  draw(answer);
  refresh();
  announce(ENDED[answer.status] + (answer.error ? ` ${answer.error.message}` : ''));
  if (answer.status === 'failed' || answer.status === 'cancelled') fillFigures(answer);
}

/** @type {Readonly<Record<string, string>>} */
const ENDED = {
  completed: 'Answer complete.',
  failed: 'The answer failed.',
  cancelled: 'The answer was stopped.',
  lost: '',
};

/** Ask for the figures that only `completed` brings along. */
async function fillFigures(/** @type {Answer} */ answer) {
  if (!answer.job) return;
  try {
    applyFigures(answer, await fetchJob(answer.job.id));
    saveTurns(turns);
    draw(answer);
  } catch {
    // The answer is all there; only figures are missing.
  }
}

// --- Stop ------------------------------------------------------------------------------------------------------------

function stop() {
  const answer = liveAnswer();
  if (!answer || answer.stopping) return;
  answer.stopping = true;
  saveTurns(turns);
  draw(answer);
  refresh();
  announce('Stopping.');
  if (answer.job) requestCancel(answer); // else as soon as the job is known
}

/** Ask for the end until the server has heard it; the job's last event then tells that it came. */
async function requestCancel(/** @type {Answer} */ answer) {
  for (let tries = 0; answer.job && isLive(answer); tries++) {
    try {
      await cancel(answer.job.cancel_url);
      return;
    } catch (error) {
      if (error instanceof Refused && !error.passing) {
        answer.stopping = false;
        draw(answer);
        return refresh();
      }
      await new Promise((resolve) => setTimeout(resolve, backoffMs(tries, error)));
    }
  }
}

/** Begin anew. What still runs is stopped: nobody could read it any more. */
function newChat() {
  stop();
  unsubscribe();
  turns = [];
  saveTurns(turns);
  showAll();
  announce('New chat.');
  focusPrompt();
}

// --- Models ----------------------------------------------------------------------------------------------------------

async function fillModels() {
  for (let tries = 0; ; tries++) {
    try {
      const models = await fetchModels();
      modelSelect.replaceChildren(...models.map((id) => new Option(id, id)));
      const kept = loadModel();
      if (kept !== null && models.includes(kept)) modelSelect.value = kept;
      if (waitingForModels) send();
      return;
    } catch (error) {
      const passing = !(error instanceof Refused) || error.passing;
      const why = error instanceof Refused ? error.message : 'The server cannot be reached.';
      modelSelect.replaceChildren(new Option(passing ? `${why} Trying again…` : why, ''));
      if (!passing) return;
      await new Promise((resolve) => setTimeout(resolve, backoffMs(tries, error)));
    }
  }
}

// --- Controls --------------------------------------------------------------------------------------------------------

composer.addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return; // 229: an IME's
  event.preventDefault();
  send();
});
stopButton.addEventListener('click', stop);
newButton.addEventListener('click', newChat);
modelSelect.addEventListener('change', () => saveModel(modelSelect.value));

onOtherTab((theirs) => {
  if (shape(theirs) === shape(turns)) return;
  turns = theirs;
  showAll();
});

/** What another tab must have changed for this one to begin anew: not the text, which each tab reads by itself. */
function shape(/** @type {import('./store.js').Turn[]} */ all) {
  return all.map((turn) => `${turn.id} ${turn.role === 'assistant' ? (turn.job?.id ?? turn.status) : ''}`).join();
}

addEventListener('pagehide', () => {
  leaving = true; // some browsers fail the requests of a page that is being left
  if (liveAnswer()) saveTurns(turns);
});
addEventListener('pageshow', (event) => event.persisted && location.reload()); // its connections are gone

showAll();
fillModels();
const unsent = liveAnswer();
if (unsent?.job === null) post(unsent);
