// Runs aimock until stdin ends: it cannot outlive the test process, which holds the other end. Says its URL when ready.
import { LLMock } from "@copilotkit/aimock";

process.stdin.resume().on("close", () => process.exit(0));
const mock = new LLMock({ port: 0, host: "127.0.0.1", strict: true, logLevel: "warn", journalMaxEntries: 0 });
console.log(await mock.start());
