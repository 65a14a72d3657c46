// @ts-check
/**
 * Rejoin, in browsers and in Node: submit a job, read its events to the last one over any number of cuts, cancel it.
 *
 *   const rejoin = new Rejoin({ key });
 *   const job = await rejoin.submit({ provider: 'demo', model: 'tour', messages: [{ role: 'user', content: 'Hi' }] });
 *   for await (const { event, data } of rejoin.subscribe(job)) if (event === 'token') show(data.text);
 *
 * It reads by fetch, not by EventSource: key and cursor travel as headers, a refusal has a status, silence is noticed.
 *
 * @typedef {{id: string, event: string, data: any}} Event
 * @typedef {{id: string, events_url?: string}} Job  what `submit` returned, or its id; without a key its ticket is used
 * @typedef {object} Reading
 * @property {string} [after]  the id of the last event that you have: what comes behind it is read
 * @property {(connected: boolean) => void} [onConnection]  the stream is open, or is being opened again
 * @property {() => Promise<Job>} [renew]  fetches the job with a new ticket, when the old one has expired
 * @property {AbortSignal} [signal]  ends the reading, not the job
 */

export const LAST_EVENTS = ['completed', 'failed', 'cancelled'];
const TIMEOUT_MS = 30_000; // of one request, up to its headers; the API itself gives up after a second or two

/** The API, or whatever stands before it, has said no. `message` is for people, `code` for programs. */
export class Refused extends Error {
  constructor(/** @type {number} */ status, /** @type {any} */ problem, retryAfterMs = 0) {
    const words = [problem?.detail, problem?.title].find((text) => typeof text === 'string');
    super(words ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = `${problem?.code ?? ''}`;
    this.retryAfterMs = retryAfterMs;
    this.passing = status === 408 || status === 429 || status >= 500; // another try may go through
  }
}

/** How long to wait before try number `tries`: doubling up to 10 s, jittered, and as long as the server asked for. */
export function backoffMs(/** @type {number} */ tries, /** @type {unknown} */ error = null, firstMs = 500) {
  const ms = Math.min(10_000, firstMs * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2);
  return Math.max(ms, error instanceof Refused ? error.retryAfterMs : 0);
}

export class Rejoin {
  /** @param {{base?: string, key?: string | null, silentMs?: number}} [options] */
  constructor({ base = '', key = null, silentMs = 30_000 } = {}) {
    this.base = base; // where the API is, if not where the page is from
    this.key = key;
    this.silentMs = silentMs; // a stream that was silent for so long was cut; above the server's heartbeat, 10 s
  }

  /** Create a job. The same `idempotencyKey` gives the same job, however often it is sent. */
  submit(/** @type {object} */ request, { idempotencyKey = '' } = {}) {
    const headers = { 'Content-Type': 'application/json', ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }) };
    return this.call('/v1/jobs', { method: 'POST', headers, body: JSON.stringify(request) });
  }

  /** Ask for a job's end; the request goes out even if the page is being closed. */
  cancel(/** @type {string | Job} */ job) {
    return this.call(`${pathOf(job)}/cancel`, { method: 'POST', keepalive: true });
  }

  /** Read a job's record, as it is now. */
  job(/** @type {string | Job} */ job) {
    return this.call(pathOf(job));
  }

  /**
   * Read a job's events, each once and in order, to the last one, across any number of connections. End without a last
   * event if there is nothing behind the cursor. Throw Refused if it is of no use to come back (the job is forgotten).
   * `wake()` on what is returned comes back at once, if cut or suspiciously silent: the network is there again.
   *
   * @param {string | Job} job @param {Reading} [options] @returns {AsyncIterable<Event> & {wake: () => void}}
   */
  subscribe(job, options = {}) {
    const line = { cut: () => {}, heardMs: Date.now() };
    const wake = () => void (Date.now() - line.heardMs > this.silentMs / 2 && line.cut());
    return { [Symbol.asyncIterator]: () => this.read(job, options, line), wake };
  }

  /** @param {string | Job} job @param {Reading} options @param {{cut: () => void, heardMs: number}} line */
  async *read(job, { after = '', onConnection = () => {}, renew, signal }, line) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
    const cutAfter = (/** @type {number} */ ms) => (clearTimeout(timer), (timer = setTimeout(() => line.cut(), ms)));
    const hear = () => cutAfter(((line.heardMs = Date.now()), this.silentMs));
    signal?.addEventListener('abort', () => line.cut());
    for (let tries = 0, firstMs = 500, failure; !signal?.aborted; tries++) {
      const connection = new AbortController();
      try {
        line.cut = () => connection.abort();
        hear();
        const url = (!this.key && typeof job === 'object' && job.events_url) || `${pathOf(job)}/events`;
        const headers = { Accept: 'text/event-stream', ...(after && { 'Last-Event-ID': after }) };
        const response = await this.ask(url, { headers, signal: connection.signal });
        if (response.status === 204) return;
        onConnection(true);
        for await (const { id, event, data, retry } of frames(response, hear)) {
          if (retry) firstMs = Number(retry);
          if (!event) continue;
          [after, tries, failure] = [id, 0, null];
          yield { id, event, data: JSON.parse(data) };
          if (LAST_EVENTS.includes(event)) return;
        }
      } catch (error) {
        failure = error;
        if (error instanceof Refused && error.status === 401 && !this.key && renew && tries < 3) job = await renew().catch(() => job);
        else if (error instanceof Refused && !error.passing) throw error;
      } finally {
        clearTimeout(timer);
        connection.abort();
      }
      if (signal?.aborted) return;
      onConnection(false);
      cutAfter(backoffMs(tries, failure, failure ? Math.max(500, firstMs) : firstMs));
      await new Promise((resolve) => Object.assign(line, { cut: resolve, heardMs: 0 }));
    }
  }

  /** Fetch JSON. Throw Refused for an error's status, and whatever fetch throws if no answer came. */
  async call(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
    const response = await this.ask(path, { signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
    return response.json().catch(() => Promise.reject(new Refused(502, null)));
  }

  /** @param {string} path @param {RequestInit} options */
  async ask(path, options) {
    const headers = { ...options.headers, ...(this.key && { Authorization: `Bearer ${this.key}` }) };
    const response = await fetch(this.base + path, { cache: 'no-store', ...options, headers });
    if (response.ok) return response;
    const retryAfterMs = 1000 * (Number(response.headers.get('Retry-After')) || 0);
    throw new Refused(response.status, await response.json().catch(() => null), retryAfterMs);
  }
}

function pathOf(/** @type {string | Job} */ job) {
  return `/v1/jobs/${encodeURIComponent(typeof job === 'string' ? job : job.id)}`;
}

/** Yield an SSE stream's frames, each as its fields. @param {Response} response @param {() => void} hear */
async function* frames(response, hear) {
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let [rest, frame] = ['', /** @type {Record<string, string>} */ ({})];
  for (let chunk; !(chunk = await reader.read()).done; hear()) {
    const lines = (rest + chunk.value).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [name, value] = line.split(/: ?(.*)/s, 2);
      if (line !== '') frame[name] = value;
      else [, frame] = [yield frame, {}];
    }
  }
}
