// @ts-check
/**
 * What outlives the page, in localStorage, for all tabs: the chats, which there are, the last choice of a model.
 *
 * Storage may be forbidden, full, or hold anything: the page then works on without a memory.
 *
 * @typedef {{id: string, role: 'user', text: string}} Question
 * @typedef {Question | import('./answer.js').Answer} Turn
 * @typedef {{id: string, title: string, named: boolean, usedMs: number}} Entry  a chat in the list
 */

import { isLive, newAnswer } from './answer.js';

const LIST = 'rejoin.chats';
const CHAT = 'rejoin.chat.';
const MODEL = 'rejoin.model';
const MOST_CHATS = 50;
const LONGEST_TITLE = 80;

function read(/** @type {string} */ key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? 'null');
  } catch {
    return null;
  }
}

function write(/** @type {string} */ key, /** @type {unknown} */ value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function remove(/** @type {string} */ key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // There is nothing, then.
  }
}

/** Return the chats, the one that was used last first. @returns {Entry[]} */
export function listChats() {
  const entries = read(LIST);
  return Array.isArray(entries) ? entries.filter(isEntry) : [];
}

/** @param {string} id @returns {Turn[]} */
export function loadTurns(id) {
  const turns = read(CHAT + id)?.turns;
  if (!Array.isArray(turns) || !turns.every(isTurn)) return [];
  return turns.map((turn) => (turn.role === 'user' ? turn : { ...newAnswer(turn.id, turn.model), ...turn }));
}

/**
 * Keep a chat, unless another tab has deleted it. An answer that another tab has seen end is not overwritten by a half
 * of it. The chats that were not used for longest make room, then this one's oldest turns.
 *
 * @param {string} id @param {Turn[]} turns @param {boolean} [used]  bring it to the top of the list
 */
export function saveTurns(id, turns, used = false) {
  if (!used && !listChats().some((entry) => entry.id === id)) return;
  const ended = new Map(loadTurns(id).map((turn) => [turn.id, isUnfinished(turn) ? null : turn]));
  let kept = turns.map((turn) => (isUnfinished(turn) && ended.get(turn.id)) || turn);
  while (!write(CHAT + id, { turns: kept })) {
    const oldest = listChats().findLast((entry) => entry.id !== id);
    if (oldest) deleteChat(oldest.id);
    else if (kept.length > 2) kept = kept.slice(Math.ceil(kept.length / 2));
    else break;
  }
  if (used) enlist(id, turns);
}

function enlist(/** @type {string} */ id, /** @type {Turn[]} */ turns) {
  const entries = listChats();
  const before = entries.find((entry) => entry.id === id);
  const question =
    turns
      .find((turn) => turn.role === 'user')
      ?.text.trim()
      .replace(/\s+/g, ' ') ?? '';
  const title = before?.named ? before.title : shortened(question) || 'Chat';
  const fresh = { id, title, named: before?.named ?? false, usedMs: Date.now() };
  const all = [fresh, ...entries.filter((entry) => entry.id !== id)];
  for (const { id: old } of all.splice(MOST_CHATS)) remove(CHAT + old);
  write(LIST, all);
}

/** Give a chat a title; an empty one is its first question again. */
export function renameChat(/** @type {string} */ id, /** @type {string} */ title) {
  const named = title.trim() !== '';
  const first = loadTurns(id).find((turn) => turn.role === 'user')?.text ?? '';
  const given = shortened((named ? title : first).trim().replace(/\s+/g, ' ')) || 'Chat';
  write(
    LIST,
    listChats().map((entry) => (entry.id === id ? { ...entry, title: given, named } : entry)),
  );
}

export function deleteChat(/** @type {string} */ id) {
  write(
    LIST,
    listChats().filter((entry) => entry.id !== id),
  );
  remove(CHAT + id);
}

/** @returns {string | null} */
export function loadModel() {
  return read(MODEL);
}

export function saveModel(/** @type {string} */ model) {
  write(MODEL, model);
}

/** Call back when another tab has changed a chat, named by its id, or (null) the list. */
export function onOtherTab(/** @type {(id: string | null) => void} */ changed) {
  addEventListener('storage', ({ key }) => {
    if (key === null || key === LIST) changed(null);
    else if (key.startsWith(CHAT)) changed(key.slice(CHAT.length));
  });
}

function shortened(/** @type {string} */ text) {
  return text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE - 1).trimEnd()}…` : text;
}

function isEntry(/** @type {any} */ entry) {
  return typeof entry?.id === 'string' && typeof entry.title === 'string';
}

function isTurn(/** @type {any} */ turn) {
  const fields =
    turn?.role === 'user' ? ['id', 'text'] : turn?.role === 'assistant' ? ['id', 'model', 'text', 'status'] : [''];
  return fields.every((name) => typeof turn?.[name] === 'string');
}

function isUnfinished(/** @type {Turn} */ turn) {
  return turn.role === 'assistant' && isLive(turn);
}
