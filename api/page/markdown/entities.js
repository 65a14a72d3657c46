// @ts-check
/** HTML's character references, as far as answers have any. */

const NAMED = new Map(
  Object.entries({
    ...{ amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', shy: '\u00ad', copy: '©', reg: '®' },
    ...{ trade: '™', deg: '°', plusmn: '±', times: '×', divide: '÷', minus: '−', micro: 'µ', middot: '·', bull: '•' },
    ...{ ndash: '–', mdash: '—', hellip: '…', laquo: '«', raquo: '»', lsquo: '‘', rsquo: '’', ldquo: '“', rdquo: '”' },
    ...{ larr: '←', uarr: '↑', rarr: '→', darr: '↓', le: '≤', ge: '≥', ne: '≠', asymp: '≈', infin: '∞', euro: '€' },
    ...{ pound: '£', yen: '¥', cent: '¢', sect: '§', para: '¶', sup2: '²', sup3: '³', frac12: '½', check: '✓' },
    ...{ lbrack: '[', rbrack: ']', lsqb: '[', rsqb: ']', lpar: '(', rpar: ')', lbrace: '{', rbrace: '}', vert: '|' },
    ...{ ast: '*', lowbar: '_', grave: '`', num: '#', colon: ':', Tab: '\t', NewLine: '\n', bsol: '\\', sol: '/' },
  }),
);
const REFERENCE = /&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|([a-z][a-z0-9]{1,31}));/iy;

/**
 * Return what the reference at `at` stands for, and where it ends; null if there is none.
 *
 * @param {string} source @param {number} at @returns {{text: string, end: number} | null}
 */
export function entityAt(source, at) {
  REFERENCE.lastIndex = at;
  const found = REFERENCE.exec(source);
  if (!found) return null;
  const [, hex, decimal, name] = found;
  const text = name ? NAMED.get(name) : character(hex ? parseInt(hex, 16) : Number(decimal));
  return text === undefined ? null : { text, end: REFERENCE.lastIndex };
}

function character(/** @type {number} */ code) {
  const none = code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
  return none ? '\ufffd' : String.fromCodePoint(code);
}
