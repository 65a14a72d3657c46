// @ts-check
/**
 * The blocks of a text, line by line: each line is looked at once, and changes nothing but the end of the tree.
 *
 * CommonMark and GFM as far as models write them. On purpose not: HTML (it is text), indented code and underlined
 * headings (both turn up by accident only, and would change what is already seen), reference links, footnotes.
 *
 * @typedef {object} Block
 * @property {'root' | 'quote' | 'list' | 'item' | 'paragraph' | 'heading' | 'code' | 'table' | 'rule'} type
 * @property {Block[]} children  of a root, quote, list or item
 * @property {number} settled  how many of the children, or rows, no later line can change
 * @property {string} text  of a paragraph, heading or code
 * @property {string[][]} rows  of a table; the first is its head
 * @property {string[]} align  of a table's columns
 * @property {string} marker  of a list, the character behind or instead of its numbers; of code, its fence
 * @property {number} number  a list's first; a heading's level; how far an item's lines, or code's, are indented
 * @property {boolean | null} task  done, or to do; null for an item that is no task
 * @property {string} language  of code
 */

const DEEPEST = 24; // blocks within blocks: beyond that, markers are text
const MOST_COLUMNS = 64;
const LEAVES = new Set(['paragraph', 'code', 'table']);

const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}([.)]))( +|$)/;
const TASK = /^\[([ xX])\] /;
const FENCE = /^ *(`{3,}(?=[^`]*$)|~{3,}) *(\S*)/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const COLUMNS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** The end of a line that may yet become something else than text: a marker, or the beginning of one. */
const UNDECIDED =
  /^(?:[ \t>]|[-*+] |\d{1,9}[.)] )*(?:#{1,6}|`+|~+|(?:```|~~~)[^`]*|[-*_+ \t]*|\d{1,9}[.)]?|\|[-:| \t]*|:?-[-:| \t]*)$/;

/** @param {Block['type']} type @param {Partial<Block>} [more] @returns {Block} */
function block(type, more = {}) {
  const none = {
    children: [],
    settled: 0,
    text: '',
    rows: [],
    align: [],
    marker: '',
    number: 0,
    task: null,
    language: '',
  };
  return { type, ...none, ...more };
}

/** Say whether a line that is still being written may turn out to be a marker, so that it is better not shown yet. */
export function isUndecided(/** @type {string} */ line) {
  return line.length < 200 && UNDECIDED.test(line);
}

export class Blocks {
  constructor() {
    this.root = block('root');
    /** @type {Block[]} what is open: the root, containers within containers, and a leaf or not */
    this.spine = [this.root];
  }

  get top() {
    return this.spine[this.spine.length - 1];
  }

  /** Return the way back to where we are now; all that is there, but for the end, is settled. */
  mark() {
    const saved = this.spine.map((node, at) => {
      if (node.type === 'table') node.settled = node.rows.length;
      else if (node.children.length) node.settled = node.children.length - (at + 1 < this.spine.length ? 1 : 0);
      return {
        node,
        length: node.children.length,
        last: node.children.at(-1),
        text: node.text,
        rows: node.rows.length,
      };
    });
    return () => {
      this.spine = saved.map(({ node, length, last, text, rows }) => {
        node.children.length = length;
        if (last) node.children[length - 1] = last;
        node.text = text;
        node.rows.length = rows;
        return node;
      });
    };
  }

  /** Add a line, without its line break. */
  add(/** @type {string} */ line) {
    let rest = line;
    let at = 1;
    for (; at < this.spine.length; at++) {
      const within = goOn(this.spine[at], rest);
      if (within === null) break;
      rest = within;
    }
    const leaf = LEAVES.has(this.top.type) ? this.top : null;
    const whole = at >= this.spine.length - (leaf ? 1 : 0); // all containers go on
    if (whole && leaf?.type === 'code') return this.addCode(leaf, rest);
    rest = dedented(rest, 0);
    const blank = rest.trim() === '';
    if (!whole && !blank && leaf?.type === 'paragraph' && !startsBlock(rest)) {
      leaf.text += `\n${rest.trimStart()}`; // a lazy line
      return;
    }
    if (!whole) this.spine.length = at;
    if (blank) return this.close();
    rest = this.openContainers(rest);
    if (this.top.type === 'list') this.spine.pop(); // no item of it
    if (rest.trim() !== '') this.addLeaf(rest);
  }

  /** Open the quotes and items that begin here; return what is left of the line. */
  openContainers(/** @type {string} */ rest) {
    while (this.spine.length < DEEPEST) {
      const quote = QUOTE.exec(rest);
      const item = quote || isRule(rest) ? null : ITEM.exec(rest);
      if (!quote && (!item || !this.takesItem(item, rest))) break;
      this.close();
      if (item) {
        const [all, indent, marker, , space] = item;
        this.openList(item);
        rest = rest.slice(all.length);
        const node = block('item', {
          number: space.length > 4 || rest === '' ? indent.length + marker.length + 1 : all.length,
        });
        if (space.length > 4) rest = ' '.repeat(space.length - 1) + rest;
        const task = TASK.exec(rest);
        if (task) {
          node.task = task[1] !== ' ';
          rest = rest.slice(task[0].length);
        }
        this.push(node);
      } else if (quote) {
        if (this.top.type === 'list') this.spine.pop();
        this.push(block('quote'));
        rest = rest.slice(quote[0].length);
      }
    }
    return rest;
  }

  /** A paragraph is not torn by a number that happens to begin its line. */
  takesItem(/** @type {RegExpExecArray} */ item, /** @type {string} */ rest) {
    if (this.top.type !== 'paragraph') return true;
    return rest.length > item[0].length && (!item[3] || item[2].length === 2);
  }

  openList(/** @type {RegExpExecArray} */ item) {
    const marker = item[3] ?? item[2];
    if (this.top.type === 'list' && this.top.marker === marker) return;
    if (this.top.type === 'list') this.spine.pop();
    this.push(block('list', { marker, number: item[3] ? Number.parseInt(item[2], 10) : 0 }));
  }

  addLeaf(/** @type {string} */ rest) {
    const { top } = this;
    const fence = FENCE.exec(rest);
    const heading = HEADING.exec(rest);
    if (fence) {
      this.close();
      const indent = rest.length - rest.trimStart().length;
      this.push(block('code', { marker: fence[1], language: fence[2], number: indent }));
    } else if (heading) {
      this.close();
      this.top.children.push(block('heading', { number: heading[1].length, text: headingText(rest) }));
    } else if (
      top.type === 'paragraph' &&
      rest.includes('-') &&
      rest.length < 4000 &&
      COLUMNS.test(rest) &&
      this.openTable(top, rest)
    ) {
      return;
    } else if (isRule(rest)) {
      this.close();
      this.top.children.push(block('rule'));
    } else if (top.type === 'table') {
      top.rows.push(cells(rest).slice(0, top.rows[0].length));
    } else if (top.type === 'paragraph') top.text += `\n${rest.trimStart()}`;
    else this.push(block('paragraph', { text: rest.trimStart() }));
  }

  addCode(/** @type {Block} */ code, /** @type {string} */ rest) {
    const bare = rest.trim();
    const closing =
      bare.length >= code.marker.length && bare.startsWith(code.marker) && bare === code.marker[0].repeat(bare.length);
    if (closing) this.close();
    else
      code.text += `${code.number && indentOf(rest) ? dedented(rest, Math.min(code.number, indentOf(rest))) : rest}\n`;
  }

  /** Make a table of a paragraph's last line, if it has as many cells as the line below it says. */
  openTable(/** @type {Block} */ paragraph, /** @type {string} */ rest) {
    const break_ = paragraph.text.lastIndexOf('\n');
    const head = cells(paragraph.text.slice(break_ + 1));
    const columns = cells(rest);
    if (head.length !== columns.length || head.length > MOST_COLUMNS || !(rest + paragraph.text).includes('|'))
      return false;
    this.close();
    if (break_ === -1) this.top.children.pop();
    else paragraph.text = paragraph.text.slice(0, break_);
    const align = columns.map((cell) => (cell.endsWith(':') ? (cell.startsWith(':') ? 'center' : 'right') : ''));
    this.push(block('table', { rows: [head], align }));
    return true;
  }

  push(/** @type {Block} */ node) {
    this.top.children.push(node);
    this.spine.push(node);
  }

  /** Close the leaf, if one is open. */
  close() {
    if (LEAVES.has(this.top.type)) this.spine.pop();
  }
}

/** Return what a line holds for an open block that goes on with it; null if it does not. */
function goOn(/** @type {Block} */ node, /** @type {string} */ rest) {
  switch (node.type) {
    case 'list':
      return rest; // its item knows
    case 'quote': {
      const quote = QUOTE.exec(rest);
      return quote ? rest.slice(quote[0].length) : null;
    }
    case 'item': {
      if (rest.trim() === '') return '';
      const indent = indentOf(rest);
      if (indent >= node.number) return dedented(rest, node.number);
      return indent >= 2 && ITEM.test(rest) ? rest.trimStart() : null; // many indent by two below a number
    }
    default:
      return null;
  }
}

/** Return how many columns a line is indented. */
function indentOf(/** @type {string} */ line) {
  let columns = 0;
  for (const char of line) {
    if (char === '\t') columns += 4 - (columns % 4);
    else if (char === ' ') columns++;
    else break;
  }
  return columns;
}

/** Return a line without so many columns of its indentation; tabs that are left at its beginning are spaces then. */
function dedented(/** @type {string} */ line, /** @type {number} */ columns) {
  if (line.startsWith(' '.repeat(columns)) && line[columns] !== '\t') return line.slice(columns);
  return ' '.repeat(Math.max(0, indentOf(line) - columns)) + line.trimStart();
}

function startsBlock(/** @type {string} */ rest) {
  return QUOTE.test(rest) || ITEM.test(rest) || FENCE.test(rest) || HEADING.test(rest) || isRule(rest);
}

function isRule(/** @type {string} */ rest) {
  const first = rest.trimStart()[0];
  if (first !== '-' && first !== '*' && first !== '_') return false;
  const bare = rest.replace(/[ \t]/g, '');
  return bare.length >= 3 && bare === first.repeat(bare.length);
}

function headingText(/** @type {string} */ rest) {
  const text = rest.trim().replace(/^#+/, '').trim();
  let end = text.length;
  while (text[end - 1] === '#') end--;
  return end === 0 || ' \t'.includes(text[end - 1]) ? text.slice(0, end).trimEnd() : text;
}

/** Return a row's cells; `\|` does not part them. */
function cells(/** @type {string} */ line) {
  const row = line.trim().replace(/^\|/, '');
  const parts = [];
  let part = '';
  for (let at = 0; at < row.length; at++) {
    if (row[at] === '|') {
      parts.push(part.trim());
      part = '';
    } else if (row[at] === '\\' && row[at + 1] === '|') {
      part += '|';
      at++;
    } else part += row[at];
  }
  if (part.trim() !== '' || parts.length === 0) parts.push(part.trim());
  return parts;
}
