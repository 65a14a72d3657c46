// Submits a job, or goes on reading one, as a program in Node would; prints what comes, a line of JSON each.
import { pathToFileURL } from 'node:url';

const [module, base, key, job, after] = process.argv.slice(2);
const { Rejoin } = await import(pathToFileURL(module));
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const { fetch } = globalThis;
globalThis.fetch = (url, options) => {
  say({ asked: String(url).slice(base.length), headers: options.headers });
  return fetch(url, options);
};
const rejoin = new Rejoin({ base, key: key || null, silentMs: 2000 });
const read = job || (await rejoin.submit({ provider: 'openai', model: 'm', messages: [{ role: 'user', content: 'Hi' }] }));
say({ job: read.id ?? read });
try {
  for await (const event of rejoin.subscribe(read, { after, onConnection: (connected) => say({ connected }) })) say(event);
  say({ over: true });
} catch (error) {
  say({ refused: error.status, code: error.code });
}
