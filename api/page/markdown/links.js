// @ts-check
/** Which addresses an answer may link to. */

const PROTOCOLS = new Set(['http:', 'https:', 'mailto:']);
const LONGEST = 2000;

/**
 * Return the address that a link leads to, as the browser understands it; null for all but the web and mail.
 *
 * The browser's own parser decides what an address is, and what it made of it is what is used: nothing that is spelled
 * in another way (`java\nscript:`, upper case, entities) means one thing to this check and another to a click. Without
 * a base there are no addresses of this server.
 *
 * @param {string} destination @returns {string | null}
 */
export function safeUrl(destination) {
  if (destination.length > LONGEST) return null;
  try {
    const url = new URL(destination);
    return PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
