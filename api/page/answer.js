// @ts-check
/**
 * One answer: what a job's events add up to. No DOM, no network.
 *
 * @typedef {{input_tokens: number, output_tokens: number, estimated: boolean}} Usage
 * @typedef {{index?: number, id: string | null, name: string | null, arguments: string}} ToolCall
 * @typedef {{id: string, status: string, provider: string, model: string, text: string, reasoning: string,
 *   tool_calls: ToolCall[], finish_reason: string | null, usage: Usage | null, cost_usd: number | null,
 *   attempts: number, error: {code: string, message: string, retryable: boolean} | null, created_at: string,
 *   started_at: string | null, first_token_at: string | null, finished_at: string | null}} Job  as the API has it
 * @typedef {'sending' | 'queued' | 'running' | 'completed' | 'failed' | 'cancelled' | 'lost'} Status
 *   `sending`: the API has not answered yet; `lost`: the API does not keep the job any more
 *
 * @typedef {object} Answer
 * @property {string} id  also the job's Idempotency-Key
 * @property {'assistant'} role
 * @property {string} model  `provider/model`: the one that was asked, then the one that answers
 * @property {{id: string} | null} job
 * @property {string} cursor  the id of the last event that is in here: reading goes on behind it
 * @property {Status} status
 * @property {boolean} stopping  the user has asked for the end
 * @property {number} position  in the queue
 * @property {string} reason  why it waits, where the provider has no room for it
 * @property {number} attempt
 * @property {string} notice  why the text began anew
 * @property {string} text
 * @property {string} reasoning
 * @property {ToolCall[]} toolCalls
 * @property {string | null} finishReason
 * @property {Usage | null} usage
 * @property {number | null} costUsd
 * @property {number | null} waitMs  until a worker began
 * @property {number | null} ttftMs
 * @property {number | null} durationMs
 * @property {number | null} tokensPerS
 * @property {{message: string, retryable: boolean} | null} error
 */

/** @type {Readonly<Record<string, string>>} */
const RESTARTED = {
  worker_lost: 'The worker that wrote this answer was lost. Another one begins it anew.',
  worker_stopped: 'The worker that wrote this answer was shut down. Another one begins it anew.',
  provider_error: 'The provider failed. The answer begins anew.',
  fallback: 'The provider failed. Another model answers in its place.',
};

/** @param {string} id @param {string} model @returns {Answer} */
export function newAnswer(id, model) {
  return {
    ...{ id, role: 'assistant', model, job: null, cursor: '', status: 'sending', stopping: false },
    ...{ position: 0, reason: '', attempt: 0, notice: '', text: '', reasoning: '', toolCalls: [] },
    ...{ finishReason: null, usage: null, costUsd: null, error: null },
    ...{ waitMs: null, ttftMs: null, durationMs: null, tokensPerS: null },
  };
}

/** Say whether there is more to come. */
export function isLive(/** @type {Answer} */ answer) {
  return answer.status === 'sending' || answer.status === 'queued' || answer.status === 'running';
}

/** Apply one event of the job's log: what it changes, and the cursor with it. */
export function apply(
  /** @type {Answer} */ answer,
  /** @type {import('./rejoin.js').Event} */ { id, event: name, data },
) {
  answer.cursor = id;
  switch (name) {
    case 'queued':
      answer.status = 'queued';
      answer.position = data.position;
      answer.reason = data.reason ?? '';
      break;
    case 'started':
      answer.status = 'running';
      answer.attempt = data.attempt;
      answer.model = `${data.provider}/${data.model}`;
      // A later attempt that is `started`, not `restarted`, goes on from the text that is there.
      answer.notice = data.attempt === 1 ? '' : 'Another worker goes on with this answer.';
      break;
    case 'restarted':
      answer.status = 'running';
      answer.attempt = data.attempt;
      answer.model = `${data.provider}/${data.model}`;
      answer.notice = RESTARTED[data.reason] ?? 'The answer begins anew.';
      drop(answer);
      break;
    case 'snapshot':
      answer.status = 'running';
      answer.attempt = data.attempt;
      answer.text = data.text;
      answer.reasoning = data.reasoning;
      answer.toolCalls = data.tool_calls;
      break;
    case 'token':
      answer.text += data.text;
      break;
    case 'reasoning':
      answer.reasoning += data.text;
      break;
    case 'tool_call':
      addToolCall(answer.toolCalls, data);
      break;
    case 'completed':
      finish(answer, name, data);
      answer.model = `${data.provider}/${data.model}`;
      answer.finishReason = data.finish_reason;
      answer.costUsd = data.cost_usd;
      answer.ttftMs = data.ttft_ms;
      answer.durationMs = data.duration_ms;
      break;
    case 'failed':
      finish(answer, name, data);
      answer.error = { message: data.message, retryable: data.retryable };
      break;
    case 'cancelled':
      finish(answer, name, data);
      break;
  }
}

/** Take over a finished job's record, which replaces everything. */
export function applyJob(/** @type {Answer} */ answer, /** @type {Job} */ job) {
  answer.text = job.text;
  answer.reasoning = job.reasoning;
  answer.toolCalls = job.tool_calls;
  finish(answer, /** @type {Status} */ (job.status), job);
  answer.finishReason = job.finish_reason;
  answer.error = job.error;
  applyFigures(answer, job);
}

/** Take over the figures of a finished job, of which its last event carries some only. */
export function applyFigures(/** @type {Answer} */ answer, /** @type {Job} */ job) {
  answer.model = `${job.provider}/${job.model}`;
  answer.attempt = job.attempts;
  answer.costUsd = job.cost_usd;
  answer.waitMs = between(job.created_at, job.started_at);
  answer.ttftMs ??= between(job.created_at, job.first_token_at);
  answer.durationMs ??= between(job.created_at, job.finished_at);
  const writingMs = job.first_token_at && between(job.first_token_at, job.finished_at);
  // The usage is that of all attempts, the time that of the last one.
  if (job.usage && writingMs && writingMs >= 100 && job.attempts === 1)
    answer.tokensPerS = (1000 * job.usage.output_tokens) / writingMs;
}

/** End an answer for a reason that no event told. */
export function giveUp(
  /** @type {Answer} */ answer,
  /** @type {'failed' | 'lost'} */ status,
  /** @type {string} */ message,
  retryable = true,
) {
  finish(answer, status, {});
  answer.error = { message, retryable };
}

function finish(/** @type {Answer} */ answer, /** @type {Status} */ status, /** @type {any} */ data) {
  answer.status = status;
  answer.stopping = false;
  answer.usage = data.usage ?? null;
}

function drop(/** @type {Answer} */ answer) {
  answer.text = answer.reasoning = '';
  answer.toolCalls = [];
}

function addToolCall(/** @type {ToolCall[]} */ calls, /** @type {ToolCall} */ piece) {
  const call = calls.find((each) => each.index === piece.index);
  if (call) call.arguments += piece.arguments ?? '';
  else calls.push({ ...piece, arguments: piece.arguments ?? '' });
}

function between(/** @type {string} */ from, /** @type {string | null} */ to) {
  return to === null ? null : Date.parse(to) - Date.parse(from);
}
