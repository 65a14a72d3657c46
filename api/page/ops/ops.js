// @ts-check
/** The operators' page: asks every two seconds while it is seen, and shows what it was told. */

import { element, setText } from './../elements.js';
import { loadKey, saveKey } from './../key.js';
import { Refused, Rejoin, backoffMs } from './../rejoin.js';
import { age, clock, count, duration } from './figures.js';
import { Plot } from './plot.js';
import { Table } from './table.js';

const EVERY_MS = 2000;

const find = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
/** @type {HTMLElement} */ const view = find('view');
/** @type {HTMLElement} */ const freshness = find('freshness');
/** @type {HTMLElement} */ const announcer = find('announcer');
/** @type {HTMLFormElement} */ const keyForm = find('key-form');
/** @type {HTMLInputElement} */ const keyField = find('key');
/** @type {HTMLElement} */ const keyWords = find('key-words');
/** @type {HTMLButtonElement} */ const forgetButton = find('forget-key');
/** @type {HTMLDialogElement} */ const sure = find('sure');

const rejoin = new Rejoin({ key: loadKey() });
/** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
let asking = false;
let tries = 0;
let shownAt = '';
/** @type {string | null} the job that the question is about */ let chosen = null;
/** @type {Map<string, {button: HTMLButtonElement, job: any}>} of the jobs that are shown */ const jobs = new Map();

const number = 'number';
const workers = new Table(find('workers'), 'Workers, those first whose lease is over', [
  { title: 'Worker' },
  { title: 'State' },
  { title: 'Jobs', className: number },
  { title: 'Slots', className: number },
  { title: 'Resting', className: number },
  { title: 'Lease left', className: number },
  { title: 'Up', className: number },
]);
const running = new Table(find('running'), 'Running jobs, those first that started first', [
  { title: 'Job' },
  { title: 'End it' },
  { title: 'Running', className: number },
  { title: 'Since POST', className: number },
  { title: 'Tokens/s', className: number },
  { title: 'Model' },
  { title: 'Owner' },
  { title: 'Attempt', className: number },
  { title: 'Worker' },
]);
const eventServers = new Table(find('event-servers'), 'Event servers, as this API process sees them', [
  { title: 'Event server' },
  { title: 'State' },
  { title: 'Ends to come', className: number },
]);
const lines = new Table(find('lines'), 'Providers, models and event servers (@) that jobs wait for', [
  { title: 'Waits for' },
  { title: 'Jobs that wait', className: number },
  { title: 'Pause left', className: number },
]);
const failures = new Table(find('failures'), 'Failed jobs of the last hour by code', [
  { title: 'Code' },
  { title: 'Jobs', className: number },
  { title: 'Last minute with one', className: number },
]);
const plots = {
  ttft: new Plot('ttft', 'Time to first token', 'From POST to the first token of an attempt, in the minute when it came.'),
  lag: new Plot('lag', 'Lag', 'From the log to the reader’s socket.'),
};
find('plots').append(plots.ttft.root, plots.lag.root);

// --- What is shown ---------------------------------------------------------------------------------------------------

/** @param {any} told  the answer of `GET /v1/ops` */
function show(told) {
  shownAt = told.at;
  view.hidden = false;
  showFigures(told);
  workers.show(
    told.workers.data.map((/** @type {any} */ worker) => ({
      key: worker.name,
      className: worker.state === 'lost' ? 'bad' : '',
      cells: [
        worker.name,
        worker.state,
        count(worker.running),
        count(worker.slots),
        count(worker.resting),
        `${worker.lease_left_s.toFixed(1)} s`,
        age(worker.up_s),
      ],
    })),
  );
  more('more-workers', told.workers.count - told.workers.data.length);
  showJobs(told.running);
  showEventServers(told.event_servers ?? []); // an API process of an older version, in a rollout
  showLines(told.queue);
  showHour(told.hour);
  document.title = `${count(told.queue.waiting)} wait, ${count(told.running.count)} run – Rejoin`;
}

/** Change what is shown, and have what somebody reads stay where it is, whatever comes or goes above it. */
function holdStill(/** @type {() => void} */ change) {
  const focused = view.contains(document.activeElement) ? document.activeElement : null;
  const middle = document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest('tr, figure, section');
  const anchor = view.querySelector('tr:hover') ?? focused ?? middle;
  const before = anchor?.getBoundingClientRect().top ?? 0;
  change();
  if (anchor?.isConnected) scrollBy(0, anchor.getBoundingClientRect().top - before);
}

/** @param {any} told */
function showFigures({ queue, workers, running, hour }) {
  const ended = hour.completed + hour.failed + hour.cancelled;
  const now = [
    ['Waiting', count(queue.waiting), queue.blocked ? `${count(queue.blocked)} for room` : ''],
    ['Oldest waits', age(queue.oldest_age_s), ''],
    ['Running', count(running.count), `of ${count(workers.slots)} slots`],
    ['Workers', count(workers.count), ''],
    ['Ended in an hour', count(ended), `${count(hour.cancelled)} cancelled`],
    ['Failed in an hour', count(hour.failed), ended ? `${((100 * hour.failed) / ended).toFixed(1)} %` : ''],
  ];
  const root = find('figures');
  now.forEach(([name, figure, note], at) => {
    const box = root.children[at] ?? root.appendChild(element('div', '', element('dt', ''), element('dd', ''), element('dd', 'note')));
    [name, figure, note].forEach((text, place) => setText(box.children[place], text));
  });
}

/** @param {any} told */
function showJobs({ count: all, data }) {
  const here = new Set(data.map((/** @type {any} */ job) => job.id));
  for (const id of jobs.keys()) if (!here.has(id)) jobs.delete(id);
  running.show(
    data.map((/** @type {any} */ job) => ({
      key: job.id,
      className: job.tokens_per_s === 0 ? 'silent' : '',
      cells: [
        job.id,
        cancelButton(job),
        age(job.running_s),
        age(job.age_s),
        job.tokens_per_s === null ? (job.answering ? '…' : 'no token yet') : job.tokens_per_s.toFixed(1),
        job.model,
        job.owner,
        `${job.attempt}`,
        job.worker ?? '–',
      ],
    })),
  );
  more('more-running', all - data.length);
}

/** @param {any} job */
function cancelButton(job) {
  let known = jobs.get(job.id);
  if (!known) {
    const button = /** @type {HTMLButtonElement} */ (element('button', 'small', 'Cancel'));
    button.type = 'button';
    button.setAttribute('aria-label', `Cancel ${job.id}`);
    button.addEventListener('click', () => ask(job.id));
    known = { button, job };
    jobs.set(job.id, known);
  }
  known.job = job;
  if (job.cancelling) {
    setText(known.button, 'Cancelling');
    known.button.disabled = true;
  }
  return known.button;
}

/** @param {any[]} servers */
function showEventServers(servers) {
  find('event-servers-section').hidden = servers.length === 0;
  eventServers.show(
    servers.map((server) => ({
      key: server.name,
      className: server.state === 'away' ? 'bad' : '',
      cells: [
        server.name,
        (server.state === 'away' ? 'away: its answers stand still' : 'there') + (server.closed ? ', closed' : ''),
        count(server.unsent),
      ],
    })),
  );
}

/** @param {any} queue */
function showLines({ lines: waiting, pauses }) {
  const left = new Map(pauses.map((/** @type {any} */ pause) => [pause.scope, pause.left_s]));
  const scopes = new Map(waiting.map((/** @type {any} */ line) => [line.scope, line.waiting]));
  for (const scope of left.keys()) if (!scopes.has(scope)) scopes.set(scope, 0);
  lines.show([...scopes].map(([scope, jobs]) => ({ key: scope, cells: [scope, count(jobs), left.has(scope) ? age(left.get(scope)) : '–'] })));
}

/** @param {any} hour */
function showHour(hour) {
  for (const name of /** @type {const} */ (['ttft', 'lag'])) {
    const minutes = hour.minutes.map((/** @type {any} */ minute) => ({ at: minute.at, spread: minute[name] }));
    plots[name].show(minutes, hour[name]);
  }
  failures.show(
    hour.failures.map((/** @type {any} */ failure) => ({
      key: failure.code,
      cells: [failure.code, count(failure.count), clock(failure.last_at)],
    })),
  );
}

function more(/** @type {string} */ id, /** @type {number} */ number) {
  setText(find(id), number > 0 ? `And ${count(number)} more.` : '');
}

// --- When it is asked for --------------------------------------------------------------------------------------------

async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  clearTimeout(timer);
  let nextMs = EVERY_MS;
  try {
    const told = await rejoin.call('/v1/ops');
    holdStill(() => show(told));
    tries = 0;
    freshness.classList.remove('stale');
    setText(freshness, `As of ${clock(shownAt, true)}`);
  } catch (error) {
    if (error instanceof Refused && [401, 404].includes(error.status)) {
      asking = false;
      return keyWanted(error);
    }
    if (!(error instanceof Refused || error instanceof TypeError || error instanceof DOMException)) throw error;
    nextMs = backoffMs(tries++, error, EVERY_MS);
    freshness.classList.add('stale');
    const since = shownAt ? `Nothing new since ${clock(shownAt, true)}: ` : '';
    setText(freshness, `${since}${error instanceof Refused ? error.message : 'the server cannot be reached.'} Trying again…`);
    if (tries === 1) announce(freshness.textContent ?? '');
  } finally {
    asking = false;
  }
  timer = setTimeout(refresh, nextMs);
}

// --- Cancel ----------------------------------------------------------------------------------------------------------

/** @param {string} id */
function ask(id) {
  const job = jobs.get(id)?.job;
  if (!job) return;
  chosen = id;
  setText(find('sure-words'), `${id} of ${job.owner}, ${job.model}, has been running for ${age(job.running_s)}.`);
  sure.showModal();
}

async function cancel() {
  const id = chosen;
  sure.close();
  if (id === null) return;
  const button = jobs.get(id)?.button;
  if (button) {
    setText(button, 'Cancelling');
    button.disabled = true;
    find('running').parentElement.focus(); // a button that cannot be pressed keeps no focus
  }
  try {
    const { outcome } = await rejoin.call(`/v1/ops/jobs/${encodeURIComponent(id)}/cancel`, { method: 'POST' });
    announce(outcome === 'already_finished' ? `${id} had ended by itself.` : outcome === 'cancelling' ? `${id} is being cancelled.` : `${id} is cancelled.`);
  } catch (error) {
    announce(`${id} could not be cancelled: ${error instanceof Refused ? error.message : 'the server cannot be reached.'}`);
    if (button) {
      setText(button, 'Cancel');
      button.disabled = false;
    }
  }
  refresh();
}

// --- Key -------------------------------------------------------------------------------------------------------------

/** @param {Refused} refused */
function keyWanted(refused) {
  const words =
    refused.code === 'loopback_only'
      ? refused.message
      : rejoin.key === null
        ? 'This view wants an operator’s key.'
        : refused.status === 404
          ? 'This key may not operate: one that is made with --ops may.'
          : 'The server does not take this key (any more).';
  setText(keyWords, words);
  keyForm.hidden = false;
  view.hidden = true;
  forgetButton.hidden = rejoin.key === null;
  document.title = 'Operators – Rejoin';
  setText(freshness, '');
  announce(words);
  keyField.focus();
}

function useKey(/** @type {string | null} */ key) {
  rejoin.key = key;
  saveKey(key);
  forgetButton.hidden = key === null;
}

/** Say what happens to those who do not see it. */
function announce(/** @type {string} */ text) {
  announcer.textContent = text;
}

keyForm.addEventListener('submit', (event) => {
  event.preventDefault();
  const key = keyField.value.trim();
  if (key === '') return keyField.focus();
  useKey(key);
  keyForm.hidden = true;
  keyField.value = '';
  refresh();
});
forgetButton.addEventListener('click', () => {
  useKey(null);
  refresh();
});
find('sure-yes').addEventListener('click', cancel);
find('sure-no').addEventListener('click', () => sure.close());
sure.addEventListener('close', () => (chosen = null));
document.addEventListener('visibilitychange', refresh);
addEventListener('online', refresh);

forgetButton.hidden = rejoin.key === null;
refresh();
