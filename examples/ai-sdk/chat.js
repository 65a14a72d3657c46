// A chat that survives a reload in mid-answer: `useChat` at its defaults, with Rejoin at /api/chat of the page's origin.
import { useChat } from "@ai-sdk/react";
import { createElement as h } from "react";

export function Chat({ id, messages: kept }) {
  const { messages, sendMessage, status, error } = useChat({ id, messages: kept, resume: true });
  const send = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.elements.text.value });
  };
  // `useChat`'s own stop() closes this page's connection; the answer would go on.
  const stop = () => fetch(`/api/chat/${encodeURIComponent(id)}/stop`, { method: "POST" });
  return h("form", { onSubmit: send },
    messages.map((message) => h("p", { key: message.id }, message.parts.map((part) => part.text))),
    h("output", null, error?.message ?? status),
    h("input", { name: "text" }), h("button", null, "Send"), h("button", { type: "button", onClick: stop }, "Stop"));
}
