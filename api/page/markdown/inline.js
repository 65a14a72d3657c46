// @ts-check
/**
 * What a paragraph holds: emphasis, code, links. One pass from left to right, linear whatever the text.
 *
 * @typedef {{tag: 'em' | 'strong' | 'del' | 'a' | 'code' | 'br' | 'control', children: Inline[], href: string, depth: number}} Span
 * @typedef {string | Span} Inline
 * @typedef {{char: '*' | '_' | '~', count: number, closes: boolean, opens: boolean}} Run  of `*`, `_` or `~`, not matched yet
 * @typedef {{bracket: number, image: boolean}} Bracket  where a `[` stands that is not matched yet
 *
 * How the text ends: nothing comes after it (`whole`); nothing will come, yet what it left open is drawn as if it had
 * been closed (`cut`); more will come, and what may become something else with it is not shown yet (`live`).
 * @typedef {'whole' | 'cut' | 'live'} End
 */

import { entityAt } from './entities.js';
import { safeUrl } from './links.js';

const DEEPEST = 8; // spans within spans
const LONGEST_HELD = 300; // characters behind an open bracket that wait for its end
const SPECIAL = /[\\`*_~![\]<&]|https?:\/\//gi;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ADDRESS = /[^\s<>"`\\^{|}*\]]+/y; // emphasis, or a bracket, may end right behind it
const IN_ANGLES = /<(https?:\/\/[^\s<>]+|mailto:[^\s<>]+|[\w.+-]{1,64}@[\w.-]+)>/iy;
const BREAK = /<br ?\/?>/iy;
const UNFINISHED = /(?:<(?:[^\s<>]*|br \/?)|&#?[a-z0-9]{0,31}|\\)$/i;
const BIDI = /[\u202a-\u202e\u2066-\u2069]/; // turns neighbouring text around: a link could look like another
const BLANK = /\s/;

/** @param {Span['tag']} tag @param {Inline[]} children @param {string} [href] @returns {Span} */
function span(tag, children, href = '') {
  let depth = 0;
  for (const child of children) if (typeof child !== 'string' && child.depth > depth) depth = child.depth;
  return { tag, children, href, depth: depth + 1 };
}

/** Return what a text holds. @param {string} source @param {End} end */
export function parseInline(source, end) {
  return new Parser(source, end).parse();
}

/** Return up to where nothing that comes later can change what a text begins with, best a line's end; 0 if nowhere. */
export function settledUpTo(/** @type {string} */ source) {
  const parser = new Parser(source, 'whole');
  parser.parse();
  return parser.settledLines || parser.settled;
}

class Parser {
  constructor(/** @type {string} */ source, /** @type {End} */ end) {
    this.source = source;
    this.end = end;
    this.at = 0;
    this.settled = 0;
    this.settledLines = 0;
    /** @type {(Inline | Run | Bracket)[]} */ this.items = [];
    /** @type {number[]} indices of items that may open emphasis */ this.openers = [];
    /** @type {number[]} indices of items */ this.brackets = [];
    /** @type {Map<number, number[]> | null} where runs of backticks are, by their lengths */ this.ticks = null;
    this.open = { '*': 0, _: 0, '~': 0 }; // how many openers of each kind there are
    this.lost = false; // a backtick opened nothing, as far as this text goes
    this.pending = false; // the last bracket's address is not all there yet
    this.stop =
      end === 'live' ? source.length - (UNFINISHED.exec(source.slice(-LONGEST_HELD))?.[0].length ?? 0) : source.length;
  }

  parse() {
    const { source } = this;
    while (this.at < this.stop) {
      SPECIAL.lastIndex = this.at;
      const next = Math.min(SPECIAL.exec(source)?.index ?? source.length, this.stop);
      if (next > this.at) this.plain(next);
      if (this.at < this.stop) this.special(source[this.at]);
    }
    if (this.end === 'live') this.hold();
    return this.finish();
  }

  plain(/** @type {number} */ next) {
    const text = this.source.slice(this.at, next);
    if (this.openers.length === 0 && this.brackets.length === 0 && !this.lost) {
      const [space, line] = [text.lastIndexOf(' '), text.lastIndexOf('\n')];
      if (space !== -1) this.settled = this.at + space + 1;
      if (line !== -1) this.settledLines = this.at + line + 1;
    }
    this.items.push(text);
    this.at = next;
  }

  text(/** @type {string} */ text, length = text.length) {
    this.items.push(text);
    this.at += length;
  }

  special(/** @type {string} */ char) {
    switch (char) {
      case '\\':
        return this.escape();
      case '`':
        return this.code();
      case '*':
      case '_':
      case '~':
        return this.run(char);
      case '!':
        if (this.source[this.at + 1] !== '[') return this.text('!');
        return this.openBracket(true);
      case '[':
        return this.openBracket(false);
      case ']':
        return this.close();
      case '<':
        return this.angle();
      case '&': {
        const entity = entityAt(this.source, this.at);
        return entity ? this.text(entity.text, entity.end - this.at) : this.text('&');
      }
      default:
        return this.address();
    }
  }

  escape() {
    const next = this.source[this.at + 1] ?? '';
    if (next === '\n') return this.text('\n', 2);
    const code = next.charCodeAt(0);
    const isAscii = code > 32 && code < 127 && !/[a-z0-9]/i.test(next);
    return isAscii ? this.text(next, 2) : this.text('\\');
  }

  code() {
    const length = this.runLength('`');
    const from = this.at + length;
    const to = this.nextTicks(length, from);
    if (to !== -1) {
      this.items.push(span('code', controls(trimmed(this.source.slice(from, to)))));
      this.at = to + length;
    } else if (this.end !== 'whole') {
      const rest = withoutTicks(this.source.slice(from)).replace(/^ /, '');
      if (from < this.source.length) this.items.push(span('code', controls(rest)));
      else if (this.end === 'cut') this.text('`'.repeat(length));
      this.at = this.source.length;
    } else {
      this.lost = true;
      this.text('`'.repeat(length));
    }
  }

  /** Return where the next run of just `length` backticks is, looking at the whole text once. */
  nextTicks(/** @type {number} */ length, /** @type {number} */ from) {
    if (this.ticks === null) {
      this.ticks = new Map();
      for (const { index, 0: run } of this.source.matchAll(/`+/g)) {
        const places = this.ticks.get(run.length);
        if (places) places.push(index);
        else this.ticks.set(run.length, [index]);
      }
      for (const places of this.ticks.values()) places.reverse();
    }
    const places = this.ticks.get(length) ?? [];
    while (places.length && places[places.length - 1] < from) places.pop();
    return places.at(-1) ?? -1;
  }

  runLength(/** @type {string} */ char) {
    let to = this.at + 1;
    while (this.source[to] === char) to++;
    return to - this.at;
  }

  run(/** @type {'*' | '_' | '~'} */ char) {
    const { source, at } = this;
    const count = this.runLength(char);
    this.at += count;
    const [before, after] = [before_(source, at), source.slice(this.at, this.at + 2)];
    if (after === '' && this.end === 'live') return; // it may go on; what it may close is drawn as closed anyway
    const blankAfter = after === '' || BLANK.test(after[0]);
    const leftFlanking =
      !blankAfter &&
      (!PUNCTUATION.test(first(after)) || before === '' || BLANK.test(before) || PUNCTUATION.test(before));
    const blankBefore = before === '' || BLANK.test(before);
    const rightFlanking = !blankBefore && (!PUNCTUATION.test(before) || blankAfter || PUNCTUATION.test(first(after)));
    const apart = char === '_'; // not within words
    const opens = leftFlanking && (!apart || !rightFlanking || PUNCTUATION.test(before));
    const closes = rightFlanking && (!apart || !leftFlanking || PUNCTUATION.test(first(after)));
    if (char === '~' && count !== 2) this.items.push(char.repeat(count));
    else this.match({ char, count, closes, opens });
  }

  /** Close what `run` can close, and keep what is left of it as an opener or as text. */
  match(/** @type {Run} */ run) {
    const { items } = this;
    while (run.closes && run.count > 0 && this.open[run.char] > 0) {
      while (this.lastOpener().char !== run.char) this.dropOpener(); // those in between are text
      const opener = this.lastOpener();
      const index = /** @type {number} */ (this.openers.at(-1));
      const size = run.char === '~' || (opener.count >= 2 && run.count >= 2) ? 2 : 1;
      const made = span(TAGS[run.char === '~' ? 3 : size], flat(items.splice(index + 1)));
      if (made.depth > DEEPEST) {
        for (const child of made.children) items.push(child);
        this.dropOpeners(0);
        break;
      }
      items.push(made);
      while (this.brackets.length && this.brackets[this.brackets.length - 1] > index) this.brackets.pop();
      run.count -= size;
      opener.count -= size;
      if (opener.count === 0) {
        this.dropOpener();
        items.splice(index, 1);
      }
    }
    if (run.count === 0) return;
    if (run.opens) {
      this.openers.push(items.length);
      this.open[run.char]++;
    }
    items.push(run.opens ? run : run.char.repeat(run.count));
  }

  lastOpener() {
    return /** @type {Run} */ (this.items[/** @type {number} */ (this.openers.at(-1))]);
  }

  dropOpener() {
    this.open[this.lastOpener().char]--;
    this.openers.pop();
  }

  /** Leave as text what would open emphasis from this item on. */
  dropOpeners(/** @type {number} */ from) {
    while (this.openers.length && this.openers[this.openers.length - 1] >= from) this.dropOpener();
  }

  openBracket(/** @type {boolean} */ image) {
    this.brackets.push(this.items.length);
    this.items.push({ bracket: this.at, image });
    this.at += image ? 2 : 1;
  }

  close() {
    const index = this.brackets.pop();
    const found = index === undefined ? null : destination(this.source, this.at + 1);
    if (index === undefined || found === null || found.unfinished) {
      if (found?.unfinished && this.end === 'live') {
        this.brackets.push(/** @type {number} */ (index));
        this.stop = this.at; // all from the bracket on is held
        this.pending = true;
        return;
      }
      return this.text(']');
    }
    const href = safeUrl(found.text);
    if (href === null) return this.text(']');
    const { image } = /** @type {Bracket} */ (this.items[index]);
    this.dropOpeners(index);
    const children = withoutLinks(flat(this.items.splice(index).slice(1)));
    if (!image) this.brackets.length = 0; // no links within links
    this.items.push(span('a', image && children.length === 0 ? [href] : children, href));
    this.at = found.end;
  }

  angle() {
    for (const [pattern, make] of ANGLES) {
      pattern.lastIndex = this.at;
      const found = pattern.exec(this.source);
      const made = found && make(found[1]);
      if (!found || !made) continue;
      this.items.push(made);
      this.at += found[0].length;
      return;
    }
    this.text('<');
  }

  address() {
    ADDRESS.lastIndex = this.at;
    const found = /** @type {RegExpExecArray} */ (ADDRESS.exec(this.source))[0];
    let end = found.length;
    let open = 0;
    for (const char of found) open += char === '(' ? 1 : char === ')' ? -1 : 0;
    // What ends a sentence is not the address's.
    for (; end > 0 && ".,;:!?'_~)".includes(found[end - 1]); end--) {
      if (found[end - 1] === ')' && open++ >= 0) break;
    }
    const text = found.slice(0, end);
    const href = /\w/.test(before_(this.source, this.at)) ? null : safeUrl(text);
    if (href === null) return this.text(text); // all of it: it is not looked through again
    this.items.push(span('a', [text], href));
    this.at += text.length;
  }

  /** Leave out an unmatched bracket at the end, with what is behind it: it may become a link. */
  hold() {
    const first = this.brackets.find((index) => {
      const { bracket } = /** @type {Bracket} */ (this.items[index]);
      return this.pending || this.source.length - bracket < LONGEST_HELD;
    });
    if (first === undefined) return;
    const from = this.pending ? /** @type {number} */ (this.brackets.at(-1)) : first;
    this.dropOpeners(from);
    this.items.length = from;
  }

  finish() {
    const { items, openers } = this;
    for (let drawn = 0; this.end !== 'whole' && openers.length && drawn < DEEPEST; drawn++) {
      const index = /** @type {number} */ (openers.pop());
      const run = /** @type {Run} */ (items[index]);
      const children = flat(items.splice(index + 1));
      if (children.length === 0 && this.end === 'live') items.pop();
      else if (children.length === 0) continue;
      else {
        items.pop();
        if (run.count > 3) items.push(run.char.repeat(run.count - 3));
        const inner = run.count === 1 ? span('em', children) : span(run.char === '~' ? 'del' : 'strong', children);
        const made = run.count >= 3 ? span('em', [inner]) : inner;
        items.push(made);
      }
    }
    return flat(items);
  }
}

const TAGS = /** @type {const} */ (['em', 'em', 'strong', 'del']);

/** @type {[RegExp, (text: string) => Span | null][]} */
const ANGLES = [
  [BREAK, () => span('br', [])],
  [
    IN_ANGLES,
    (text) => {
      const href = safeUrl(/^(https?|mailto):/i.test(text) ? text : `mailto:${text}`);
      return href === null ? null : span('a', [text], href);
    },
  ],
];

/** Return items as what they stand for by themselves: unmatched ones are text; texts side by side are one. */
function flat(/** @type {(Inline | Run | Bracket)[]} */ items) {
  /** @type {Inline[]} */ const made = [];
  let text = '';
  const flush = () => {
    if (text !== '') made.push(...controls(text));
    text = '';
  };
  for (const item of items) {
    if (typeof item === 'string') text += item;
    else if ('char' in item) text += item.char.repeat(item.count);
    else if ('bracket' in item) text += item.image ? '![' : '[';
    else {
      flush();
      made.push(item);
    }
  }
  flush();
  return made;
}

/** Return a text with each character in it that would turn its neighbours around spelled out. @returns {Inline[]} */
export function controls(/** @type {string} */ text) {
  if (!BIDI.test(text)) return [text];
  return text
    .split(/([\u202a-\u202e\u2066-\u2069])/)
    .filter((part) => part !== '')
    .map((part) => (BIDI.test(part) ? span('control', [`U+${part.charCodeAt(0).toString(16).toUpperCase()}`]) : part));
}

/** @param {Inline[]} nodes @returns {Inline[]} */
function withoutLinks(nodes) {
  return nodes.flatMap((node) => {
    if (typeof node === 'string') return [node];
    const children = withoutLinks(node.children);
    return node.tag === 'a' ? children : [{ ...node, children }];
  });
}

/**
 * Read `(<address> "title")` at `at`; null if that is not there, `unfinished` if it is not all there yet.
 *
 * @param {string} source @param {number} at
 */
function destination(source, at) {
  const none = { text: '', end: at, unfinished: true };
  if (at >= source.length) return none;
  if (source[at] !== '(') return null;
  let [to, open, text] = [at + 1, 0, ''];
  while (source[to] === ' ') to++;
  const angled = source[to] === '<';
  if (angled) to++;
  for (let char; ; to++) {
    if ((char = source[to]) === undefined) return none;
    if (char === '\n' || char === '<' || text.length > 4000) return null;
    if (angled ? char === '>' : char === ' ') break;
    if (!angled && char === '(' && ++open > 32) return null;
    if (!angled && char === ')' && --open < 0) break;
    const entity = char === '&' ? entityAt(source, to) : null;
    if (char === '\\' && /[!-/:-@[-`{-~]/.test(source[to + 1] ?? '')) text += source[++to];
    else if (entity) {
      text += entity.text;
      to = entity.end - 1;
    } else text += char;
  }
  if (angled) to++;
  while (source[to] === ' ') to++;
  const quote = source[to];
  if (quote === '"' || quote === "'") {
    const close = source.slice(to + 1, to + 1000).indexOf(quote);
    if (close === -1) return source.length - to < 1000 ? none : null;
    to += close + 2;
    while (source[to] === ' ') to++;
  }
  if (source[to] === undefined) return none;
  return source[to] === ')' ? { text, end: to + 1, unfinished: false } : null;
}

/** Return the character before `at`, be it of two halves. */
function before_(/** @type {string} */ source, /** @type {number} */ at) {
  const last = source.slice(Math.max(0, at - 2), at);
  return /[\ud800-\udbff][\udc00-\udfff]/.test(last) ? last : last.slice(-1);
}

/** Leave out backticks at the end, which may be some of those that end the code. */
function withoutTicks(/** @type {string} */ code) {
  let end = code.length;
  while (code[end - 1] === '`') end--;
  return code.slice(0, end);
}

function first(/** @type {string} */ text) {
  return String.fromCodePoint(text.codePointAt(0) ?? 0);
}

function trimmed(/** @type {string} */ code) {
  const text = code.replaceAll('\n', ' ');
  return text.length > 2 && text.startsWith(' ') && text.endsWith(' ') && text.trim() !== '' ? text.slice(1, -1) : text;
}
