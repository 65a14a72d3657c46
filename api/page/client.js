// @ts-check
/**
 * The one door to the API: submit a job, subscribe to its events, cancel it.
 *
 * @typedef {{role: 'user' | 'assistant', content: string}} Message
 * @typedef {{id: string, status: string, events_url: string, cancel_url: string}} Accepted  what POST /v1/jobs answers
 * @typedef {{input_tokens: number, output_tokens: number, estimated: boolean}} Usage
 * @typedef {{index?: number, id: string | null, name: string | null, arguments: string}} ToolCall
 * @typedef {{id: string, status: string, provider: string, model: string, text: string, reasoning: string,
 *   tool_calls: ToolCall[], finish_reason: string | null, usage: Usage | null, cost_usd: number | null,
 *   attempts: number, error: {code: string, message: string, retryable: boolean} | null, created_at: string,
 *   started_at: string | null, first_token_at: string | null, finished_at: string | null, events_url: string}} Job
 *
 * @typedef {object} Reader
 * @property {(name: string, data: any) => void} onEvent  every event once, in order
 * @property {(connected: boolean) => void} onConnection  the stream is open, or is being opened again
 * @property {(job: Job) => void} onFinished  the job had ended before the stream could be opened
 * @property {(error: Refused) => void} onRefused  there is nothing to read any more: the job is forgotten, or not ours
 */

const TIMEOUT_MS = 30_000; // the API itself gives up after a second or two
const LAST_EVENTS = ['completed', 'failed', 'cancelled'];
const EVENTS = ['queued', 'started', 'token', 'reasoning', 'tool_call', 'restarted', 'snapshot', ...LAST_EVENTS];

/** The API, or whatever stands before it, has said no. `message` is for people. */
export class Refused extends Error {
  /** @param {number} status @param {string} message @param {number} retryAfterMs */
  constructor(status, message, retryAfterMs) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.passing = status === 408 || status === 429 || status >= 500; // another try may go through
  }
}

/** Fetch JSON; raise Refused for an error status, and whatever fetch raises when no answer came. */
async function call(/** @type {string} */ url, /** @type {RequestInit} */ options = {}) {
  const response = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const retryAfterMs = 1000 * (Number(response.headers.get('Retry-After')) || 0);
  const status = response.ok ? 502 : response.status;
  const words = [body?.detail, body?.title].find((text) => typeof text === 'string');
  throw new Refused(status, words ?? `The server answered with status ${status}.`, retryAfterMs);
}

/** How long to wait before try number `tries`: doubling, capped, jittered, and as long as the server asked for. */
export function backoffMs(/** @type {number} */ tries, /** @type {unknown} */ error = null) {
  const ms = Math.min(10_000, 500 * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2);
  return Math.max(ms, error instanceof Refused ? error.retryAfterMs : 0);
}

/** @returns {Promise<string[]>} as `provider/model` */
export async function fetchModels() {
  return (await call('/v1/models')).data.map((/** @type {{id: string}} */ model) => model.id);
}

/** @param {string} id @returns {Promise<Job>} */
export function fetchJob(id) {
  return call(`/v1/jobs/${encodeURIComponent(id)}`);
}

/**
 * Create a job. The same `key` gives the same job, however often it is sent.
 *
 * @param {string} target  `provider/model`; a model's name may hold further slashes
 * @param {Message[]} messages
 * @param {string} key
 * @returns {Promise<Accepted>}
 */
export function submit(target, messages, key) {
  const slash = target.indexOf('/');
  return call('/v1/jobs', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body: JSON.stringify({ provider: target.slice(0, slash), model: target.slice(slash + 1), messages }),
  });
}

/** Ask for a job's end; it goes out even if the page is being closed. */
export function cancel(/** @type {string} */ cancelUrl) {
  return call(cancelUrl, { method: 'POST', keepalive: true });
}

/**
 * Read a job's events from the start to the last one, across any number of connections.
 *
 * EventSource comes back by itself, with Last-Event-ID, when a connection is cut. Any answer but 200 (a proxy's 503,
 * an expired ticket's 401) closes it for good: then a new one goes on behind the last event, with a new ticket.
 *
 * @param {string} id
 * @param {string | null} eventsUrl  with a fresh ticket; null fetches one
 * @param {Reader} reader
 * @returns {() => void} stops reading
 */
export function subscribe(id, eventsUrl, reader) {
  /** @type {EventSource | undefined} */ let source;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
  let cursor = '';
  let tries = 0;
  let done = false;

  const close = () => {
    done = true;
    clearTimeout(timer);
    source?.close();
  };

  const open = (/** @type {string} */ path) => {
    const url = new URL(path, location.href);
    if (cursor) url.searchParams.set('last_event_id', cursor);
    const opened = (source = new EventSource(url));
    opened.onopen = () => {
      tries = 0;
      reader.onConnection(true);
    };
    opened.onerror = () => {
      reader.onConnection(false);
      if (opened.readyState === EventSource.CLOSED) later();
    };
    for (const name of EVENTS) {
      opened.addEventListener(name, (/** @type {MessageEvent} */ event) => {
        cursor = event.lastEventId;
        if (LAST_EVENTS.includes(name)) close();
        reader.onEvent(name, JSON.parse(event.data));
      });
    }
  };

  const later = (/** @type {unknown} */ error = null) => {
    timer = setTimeout(renew, backoffMs(tries++, error));
  };

  const renew = async () => {
    try {
      const job = await fetchJob(id);
      if (done) return;
      if (LAST_EVENTS.includes(job.status)) reader.onFinished(job);
      else open(job.events_url);
    } catch (error) {
      if (done) return;
      reader.onConnection(false);
      if (error instanceof Refused && !error.passing) reader.onRefused(error);
      else later(error);
    }
  };

  if (eventsUrl === null) renew();
  else open(eventsUrl);
  return close;
}
