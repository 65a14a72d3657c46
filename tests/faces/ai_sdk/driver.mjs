// Pages with the AI SDK's own `useChat`, in one process: a command a line on stdin, a page's state a line on stdout,
// each time that React has rendered it anew.
import { registerHooks } from "node:module";
import { createInterface } from "node:readline";
import { Window } from "happy-dom";

const window = new Window({ url: "http://localhost/" });
globalThis.window = window;
globalThis.document = window.document;

// What an example imports is what is installed here.
registerHooks({
  resolve: (name, context, next) => next(name, /^[.\/]|:/.test(name) ? context : { ...context, parentURL: import.meta.url }),
});

const { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = await import("ai");
const { useChat } = await import("@ai-sdk/react");
const { createElement, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");

const pages = new Map();

function say(page, state) {
  process.stdout.write(JSON.stringify({ page, ...state }) + "\n");
}

function Page({ name, options, tools, page }) {
  const chat = useChat({
    ...options,
    onToolCall: ({ toolCall }) => {
      say(name, { tool: toolCall.toolName, input: toolCall.input });
      if (toolCall.toolName in tools) {
        const { output, errorText } = tools[toolCall.toolName];
        const { toolName: tool, toolCallId } = toolCall;
        chat.addToolOutput(errorText ? { state: "output-error", tool, toolCallId, errorText } : { tool, toolCallId, output });
      }
    },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
    onData: (part) => say(name, { data: part }),
    onFinish: ({ finishReason, isAbort, isDisconnect, isError }) =>
      say(name, { finish: { finishReason: finishReason ?? null, isAbort, isDisconnect, isError } }),
  });
  page.chat = chat;
  const { status, messages, error } = chat;
  useEffect(() => say(name, { state: { status, messages, error: error?.message ?? null } }));
  return null;
}

const commands = {
  open({ page: name, url, id, resume = false, messages = [], body, headers, tools = {} }) {
    // What a page asks for is told as well: a test wants to know that the SDK has.
    const fetched = async (...request) => {
      const response = await fetch(...request);
      say(name, { asked: [request[1]?.method ?? "GET", response.status] });
      return response;
    };
    const transport = new DefaultChatTransport({ api: `${url}/api/chat`, body, headers, fetch: fetched });
    const page = { root: createRoot(document.createElement("div")) };
    pages.set(name, page);
    page.root.render(createElement(Page, { name, tools, page, options: { id, resume, messages, transport } }));
  },
  // No promise of these is waited for: what becomes of them shows in the page's state.
  send({ page, text, files, options }) {
    pages.get(page).chat.sendMessage({ text, files }, options);
  },
  regenerate({ page }) {
    pages.get(page).chat.regenerate();
  },
  stop({ page }) {
    pages.get(page).chat.stop();
  },
  // A page of ours as it stands, at home with the API: it asks for paths alone.
  async example({ page: name, url, file, ...props }) {
    const { Chat } = await import(file);
    const ask = globalThis.fetch;
    globalThis.fetch = (path, ...more) => ask(new URL(path, url), ...more);
    const element = document.body.appendChild(document.createElement("div"));
    const shown = () => [...element.querySelectorAll("p, output")].map((child) => child.textContent);
    new window.MutationObserver(() => say(name, { shown: shown() })).observe(element, {
      childList: true, characterData: true, subtree: true,
    });
    const page = { element, root: createRoot(element) };
    pages.set(name, page);
    page.root.render(createElement(Chat, props));
  },
  submit({ page, text }) {
    const { element } = pages.get(page);
    element.querySelector("input").value = text;
    element.querySelector("form").requestSubmit();
  },
  click({ page, button }) {
    [...pages.get(page).element.querySelectorAll("button")].find((each) => each.textContent === button).click();
  },
  close({ page }) {
    pages.get(page)?.root.unmount();
    pages.delete(page);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...command } = JSON.parse(line);
  await commands[what](command);
}
process.exit(0);
