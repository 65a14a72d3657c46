// @ts-check
/** The page: what its controls do, and which chat they are about. */

import { ChatList, editTitle } from './chats.js';
import { Conversation, randomId } from './conversation.js';
import { loadKey, saveKey } from './key.js';
import { Refused, Rejoin, backoffMs } from './rejoin.js';
import { deleteChat, listChats, loadModel, onOtherTab, renameChat, saveModel } from './store.js';
import { Log } from './log.js';

/** @typedef {import('./answer.js').Answer} Answer */
/** @typedef {import('./answer_view.js').AnswerView} AnswerView */

const find = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
/** @type {HTMLFormElement} */ const composer = find('composer');
/** @type {HTMLTextAreaElement} */ const prompt = find('prompt');
/** @type {HTMLSelectElement} */ const modelSelect = find('model');
/** @type {HTMLButtonElement} */ const sendButton = find('send');
/** @type {HTMLButtonElement} */ const stopButton = find('stop');
/** @type {HTMLElement} */ const hint = find('hint');
/** @type {HTMLElement} */ const announcer = find('announcer');
/** @type {HTMLElement} */ const panel = find('panel');
/** @type {HTMLButtonElement} */ const renameButton = find('rename');
/** @type {HTMLButtonElement} */ const deleteButton = find('delete');
/** @type {HTMLFormElement} */ const keyForm = find('key-form');
/** @type {HTMLInputElement} */ const keyField = find('key');
/** @type {HTMLElement} */ const keyWords = find('key-words');
/** @type {HTMLButtonElement} */ const forgetButton = find('forget-key');

const rejoin = new Rejoin({ key: loadKey() });
const log = new Log(find('log'));
const list = new ChatList(find('chats'));

/** @type {Map<string, AnswerView>} the open chat's */ const views = new Map();
/** @type {Map<string, Conversation>} the open chat, and all whose answers are being written */ const chats = new Map();
let waitingForModels = false;
let untouched = true; // this tab has no chat of its own yet: it shows the one that another tab begins

const listener = {
  changed(/** @type {Conversation} */ chat, /** @type {Answer} */ answer) {
    if (chat === open) draw(answer);
  },
  settled(/** @type {Conversation} */ chat, /** @type {Answer} */ answer) {
    if (chat !== open) return void chats.delete(chat.id);
    draw(answer);
    refresh();
    announce(ENDED[answer.status] + (answer.error ? ` ${answer.error.message}` : ''));
  },
  said(/** @type {Conversation} */ chat, /** @type {Answer} */ answer, /** @type {string} */ words) {
    if (chat === open) announce(words);
  },
  keyWanted,
};

/** @type {Readonly<Record<string, string>>} */
const ENDED = {
  completed: 'Answer complete.',
  failed: 'The answer failed.',
  cancelled: 'The answer was stopped.',
  lost: '',
};

let open = chatOf(idInAddress() ?? listChats()[0]?.id ?? randomId());

// --- The open chat ---------------------------------------------------------------------------------------------------

function idInAddress() {
  return /^#[0-9a-f]{32}$/.test(location.hash) ? location.hash.slice(1) : null;
}

function chatOf(/** @type {string} */ id) {
  const chat = chats.get(id) ?? new Conversation(id, rejoin, listener);
  chats.set(id, chat);
  return chat;
}

function openChat(/** @type {string} */ id) {
  if (!open.live) chats.delete(open.id);
  open = chatOf(id);
  showAll();
  if (open.live && !open.subscription) open.resume();
}

/** Show the open chat as it is. */
function showAll() {
  log.clear();
  views.clear();
  open.turns.forEach(showTurn);
  refresh();
  log.toEnd();
}

function showTurn(/** @type {import('./store.js').Turn} */ turn) {
  if (turn.role === 'user') log.addQuestion(turn.text);
  else views.set(turn.id, log.addAnswer(turn, open, tryAgain));
}

/** Bring buttons, list and hint in line with the open chat. */
function refresh() {
  const { last, live, turns } = open;
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
  const entries = listChats();
  list.show(entries, open.id);
  renameButton.disabled = deleteButton.disabled = !entries.some(({ id }) => id === open.id);
  const title = entries.find(({ id }) => id === open.id)?.title;
  document.title = title ? `${title} – Rejoin` : 'Rejoin';
}

function draw(/** @type {Answer} */ answer) {
  const view = views.get(answer.id);
  if (view) log.change(view);
}

/** Take the focus from what is about to go; on a touch screen that would call up the keyboard. */
function focusPrompt() {
  if (!matchMedia('(pointer: coarse)').matches || document.activeElement?.matches(':focus-visible')) prompt.focus();
}

/** Say what happens to those who do not see it; the log itself is silent, or they would hear each token. */
function announce(/** @type {string} */ text) {
  announcer.textContent = text;
}

// --- Send and stop ---------------------------------------------------------------------------------------------------

function send() {
  const text = prompt.value;
  if (text.trim() === '' || open.live) return prompt.focus();
  if (modelSelect.value === '') {
    waitingForModels = true;
    return announce('Waiting for the list of models.');
  }
  prompt.value = '';
  focusPrompt();
  settleDown();
  const question = open.turns.length;
  open.ask(text, modelSelect.value);
  open.turns.slice(question).forEach(showTurn);
  refresh();
  log.toEnd();
}

/** This chat is this tab's: it is in the address, and comes back with a reload. */
function settleDown() {
  untouched = false;
  history.replaceState(null, '', `#${open.id}`);
}

function tryAgain() {
  const failed = open.last;
  if (!failed || open.live || modelSelect.value === '') return;
  views.get(failed.id)?.root.remove();
  views.delete(failed.id);
  focusPrompt();
  showTurn(open.askAgain(modelSelect.value));
  refresh();
  log.toEnd();
}

function stop() {
  const answer = open.live;
  if (!answer || answer.stopping) return;
  open.stop();
  draw(answer);
  refresh();
  announce('Stopping.');
}

// --- Chats -----------------------------------------------------------------------------------------------------------

/** Begin another chat; what is being written in this one goes on. */
function newChat() {
  untouched = false;
  if (open.turns.length > 0) location.hash = randomId();
  closePanel();
  announce('New chat.');
  focusPrompt();
}

function renameOpenChat() {
  const link = list.root.querySelector('a[aria-current]');
  if (!(link instanceof HTMLElement)) return;
  editTitle(link, link.textContent ?? '', (title) => {
    renameChat(open.id, title);
    refresh();
  });
}

/** Delete on the second click only, should it come soon. */
function deleteOpenChat() {
  if (deleteButton.dataset.sure === undefined) {
    deleteButton.dataset.sure = '';
    deleteButton.textContent = 'Really delete?';
    setTimeout(resetDelete, 5000);
    return;
  }
  resetDelete();
  deleteChat(open.id);
  open.drop();
  chats.delete(open.id);
  location.hash = listChats()[0]?.id ?? randomId();
  announce('Chat deleted.');
}

function resetDelete() {
  delete deleteButton.dataset.sure;
  deleteButton.textContent = 'Delete chat';
}

function closePanel() {
  if (panel.matches(':popover-open')) panel.hidePopover();
}

// --- Models and key --------------------------------------------------------------------------------------------------

async function fillModels() {
  for (let tries = 0; ; tries++) {
    try {
      const { data } = await rejoin.call('/v1/models');
      const models = data.map((/** @type {{id: string}} */ model) => model.id);
      modelSelect.replaceChildren(...models.map((/** @type {string} */ id) => new Option(id, id)));
      const kept = loadModel();
      if (kept !== null && models.includes(kept)) modelSelect.value = kept;
      if (waitingForModels) send();
      waitingForModels = false;
      return true;
    } catch (error) {
      const passing = !(error instanceof Refused) || error.passing;
      const why = error instanceof Refused ? error.message : 'The server cannot be reached.';
      modelSelect.replaceChildren(new Option(passing ? `${why} Trying again…` : why, ''));
      if (error instanceof Refused && error.code === 'unauthorized') keyWanted(error);
      if (!passing) return false;
      await new Promise((resolve) => setTimeout(resolve, backoffMs(tries, error)));
    }
  }
}

/** Ask for a key; one that the server has just refused is none. */
function keyWanted(/** @type {Refused} */ refused) {
  keyWords.textContent =
    rejoin.key === null ? 'This server wants an API key.' : 'The server does not take this key (any more).';
  useKey(null);
  keyForm.hidden = false;
  announce(refused.message);
}

function useKey(/** @type {string | null} */ key) {
  rejoin.key = key;
  saveKey(key);
  forgetButton.hidden = key === null;
}

async function enterKey() {
  if (keyField.value.trim() === '') return keyField.focus();
  useKey(keyField.value.trim());
  keyForm.hidden = true;
  keyField.value = '';
  focusPrompt();
  if (await fillModels()) for (const chat of chats.values()) if (chat.live) chat.resume();
}

// --- Controls --------------------------------------------------------------------------------------------------------

composer.addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
keyForm.addEventListener('submit', (event) => {
  event.preventDefault();
  enterKey();
});
forgetButton.addEventListener('click', () => {
  useKey(null);
  closePanel();
  fillModels();
});
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return; // 229: an IME's
  event.preventDefault();
  send();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !event.isComposing && !event.defaultPrevented && !panel.matches(':popover-open'))
    stop();
});
stopButton.addEventListener('click', stop);
find('new-chat').addEventListener('click', newChat);
renameButton.addEventListener('click', renameOpenChat);
deleteButton.addEventListener('click', deleteOpenChat);
modelSelect.addEventListener('change', () => saveModel(modelSelect.value));
list.root.addEventListener('click', closePanel);

addEventListener('hashchange', () => {
  untouched = false;
  const id = idInAddress();
  if (id !== null && id !== open.id) openChat(id);
});

onOtherTab((id) => {
  if (id === null) {
    const newest = listChats()[0]?.id;
    if (untouched && open.turns.length === 0 && newest) openChat(newest);
    else if (!listChats().some((entry) => entry.id === open.id) && open.reload()) showAll();
    else refresh();
  } else if (chats.get(id)?.reload() && id === open.id) showAll();
});

/** Come back at once where the network does, or the page is seen again: timers of a page that slept are late. */
for (const event of ['online', 'pageshow', 'focus']) addEventListener(event, wake);
for (const event of ['resume', 'visibilitychange']) document.addEventListener(event, wake);

function wake() {
  for (const chat of chats.values()) {
    if (!chat.live) continue;
    if (document.hidden)
      chat.save(); // a phone may end a hidden page without a word
    else chat.wake();
  }
}

addEventListener('pagehide', () => {
  for (const chat of chats.values()) {
    chat.leaving = true; // some browsers fail the requests of a page that is being left
    if (chat.live) chat.save();
  }
});
addEventListener('pageshow', (event) => event.persisted && location.reload()); // its connections are gone

forgetButton.hidden = rejoin.key === null;
showAll();
open.resume();
fillModels();
