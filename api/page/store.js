// @ts-check
/**
 * What outlives the page: the conversation and the last choice of a model, in localStorage, one for all tabs.
 *
 * @typedef {{id: string, role: 'user', text: string}} Question
 * @typedef {Question | import('./answer.js').Answer} Turn
 */

import { isLive, newAnswer } from './answer.js';

const CHAT = 'rejoin.chat';
const MODEL = 'rejoin.model';

/** Storage may be forbidden, full, or hold anything: the page then works on without a memory. */
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

/** @returns {Turn[]} */
export function loadTurns() {
  const turns = read(CHAT)?.turns;
  if (!Array.isArray(turns) || !turns.every(isTurn)) return [];
  return turns.map((turn) => (turn.role === 'user' ? turn : { ...newAnswer(turn.id, turn.model), ...turn }));
}

/**
 * Keep the conversation. An answer that another tab has seen end is not overwritten by a half of it; where the storage
 * is full, the oldest turns are left out.
 *
 * @param {Turn[]} turns
 */
export function saveTurns(turns) {
  const ended = new Map(loadTurns().map((turn) => [turn.id, isUnfinished(turn) ? null : turn]));
  let kept = turns.map((turn) => (isUnfinished(turn) && ended.get(turn.id)) || turn);
  while (!write(CHAT, { turns: kept }) && kept.length > 2) kept = kept.slice(Math.ceil(kept.length / 2));
}

/** @returns {string | null} */
export function loadModel() {
  return read(MODEL);
}

export function saveModel(/** @type {string} */ model) {
  write(MODEL, model);
}

/** Call back when another tab has changed the conversation. */
export function onOtherTab(/** @type {(turns: Turn[]) => void} */ changed) {
  addEventListener('storage', (event) => {
    if (event.key === CHAT || event.key === null) changed(loadTurns());
  });
}

function isTurn(/** @type {any} */ turn) {
  const fields =
    turn?.role === 'user' ? ['id', 'text'] : turn?.role === 'assistant' ? ['id', 'model', 'text', 'status'] : [''];
  return fields.every((name) => typeof turn?.[name] === 'string');
}

function isUnfinished(/** @type {Turn} */ turn) {
  return turn.role === 'assistant' && isLive(turn);
}
