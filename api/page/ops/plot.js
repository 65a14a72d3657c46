// @ts-check
/**
 * An hour of durations as lines over a logarithmic scale, and the same as a table behind it, for those who read figures.
 *
 * @typedef {{count: number, p50_s: number, p99_s: number} | null} Spread  null where there was nothing to measure
 * @typedef {{at: string, spread: Spread}} Minute
 */

import { element, setText } from './../elements.js';
import { clock, count, duration } from './figures.js';
import { Table } from './table.js';

const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [420, 160, 62, 18, 20];
const LINES = /** @type {const} */ (['p50_s', 'p99_s']);
const NAMES = { p50_s: 'p50', p99_s: 'p99' };

/** @param {string} tag @param {Record<string, string | number>} attributes @param {...(Node | string)} children */
function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, `${value}`);
  made.append(...children);
  return made;
}

export class Plot {
  /** @param {string} id @param {string} title @param {string} meaning */
  constructor(id, title, meaning) {
    this.title = title;
    this.heading = element('h3', '', title);
    this.summary = element('p', 'summary');
    this.description = shape('desc', { id: `${id}-desc` });
    this.drawing = shape('g', {});
    const named = { role: 'img', 'aria-labelledby': `${id}-title`, 'aria-describedby': `${id}-desc`, viewBox: `0 0 ${WIDTH} ${HEIGHT}` };
    const svg = shape('svg', named, shape('title', { id: `${id}-title` }, title), this.description, this.drawing);
    const table = /** @type {HTMLTableElement} */ (element('table', ''));
    const frame = element('div', 'wide', table);
    frame.tabIndex = 0;
    frame.setAttribute('role', 'group');
    frame.setAttribute('aria-label', `${title}, minute by minute`);
    this.details = /** @type {HTMLDetailsElement} */ (element('details', '', element('summary', '', 'As a table'), frame));
    this.table = new Table(table, `${title}, minute by minute`, [
      { title: 'Minute' },
      { title: 'Measured', className: 'number' },
      { title: 'p50', className: 'number' },
      { title: 'p99', className: 'number' },
    ]);
    this.details.addEventListener('toggle', () => this.fill());
    this.root = element('figure', '', this.heading, element('p', 'meaning', meaning), this.summary, svg, this.details);
    /** @type {Minute[]} */ this.minutes = [];
    this.drawn = '';
  }

  /** @param {Minute[]} minutes @param {Spread} whole */
  show(minutes, whole) {
    this.minutes = minutes;
    const words = whole ? `p50 ${duration(whole.p50_s)}, p99 ${duration(whole.p99_s)}, of ${count(whole.count)}` : 'Nothing was measured.';
    setText(this.summary, words);
    const now = JSON.stringify(minutes);
    if (now === this.drawn) return;
    this.drawn = now;
    const measured = minutes.filter(({ spread }) => spread !== null).length;
    setText(this.description, `${words} Lines of p50 and p99 over ${minutes.length} minutes, ${measured} of them with figures, on a logarithmic scale.`);
    this.drawing.replaceChildren(...draw(minutes));
    this.fill();
  }

  fill() {
    if (!this.details.open) return;
    const rows = this.minutes.flatMap(({ at, spread }) =>
      spread === null ? [] : [{ key: at, cells: [clock(at), count(spread.count), duration(spread.p50_s), duration(spread.p99_s)] }],
    );
    this.table.show(rows.reverse());
  }
}

/** Axes of whole decades around what there is, and a line each. @param {Minute[]} minutes */
function draw(minutes) {
  const values = minutes.flatMap(({ spread }) => (spread === null ? [] : LINES.map((name) => Math.max(spread[name], 1e-4))));
  const low = Math.floor(Math.log10(Math.min(...values, 0.1)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values, 1e-4))));
  const x = (/** @type {number} */ at) => LEFT + ((WIDTH - LEFT - 8) * at) / Math.max(1, minutes.length - 1);
  const y = (/** @type {number} */ s) => {
    const share = (Math.log10(Math.max(s, 1e-4)) - low) / (high - low);
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share;
  };
  const shapes = [];
  for (let decade = low; decade <= high; decade++) {
    const level = y(10 ** decade).toFixed(1);
    shapes.push(shape('line', { class: 'grid', x1: LEFT, x2: WIDTH - 8, y1: level, y2: level }));
    shapes.push(shape('text', { class: 'label', x: LEFT - 6, y: level, dy: '0.35em', 'text-anchor': 'end' }, duration(10 ** decade)));
  }
  minutes.forEach(({ at }, place) => {
    if (new Date(at).getMinutes() % 15 !== 0 || x(place) > WIDTH - 22) return;
    shapes.push(shape('text', { class: 'label', x: x(place).toFixed(1), y: HEIGHT - 5, 'text-anchor': 'middle' }, clock(at)));
  });
  for (const name of LINES) shapes.push(...line(minutes, name, x, y));
  return shapes;
}

/**
 * @param {Minute[]} minutes @param {'p50_s' | 'p99_s'} name
 * @param {(at: number) => number} x @param {(s: number) => number} y
 */
function line(minutes, name, x, y) {
  /** @type {string[]} */ const strokes = [];
  const shapes = [];
  let last = null;
  minutes.forEach(({ spread }, at) => {
    if (spread === null) return;
    const alone = !minutes[at - 1]?.spread && !minutes[at + 1]?.spread;
    const [here, level] = [x(at).toFixed(1), y(spread[name]).toFixed(1)];
    strokes.push(`${minutes[at - 1]?.spread ? 'L' : 'M'}${here} ${level}`);
    if (alone) shapes.push(shape('circle', { class: `dot ${NAMES[name]}`, cx: here, cy: level, r: 2 }));
    last = { here, level };
  });
  shapes.unshift(shape('path', { class: `line ${NAMES[name]}`, d: strokes.join('') }));
  if (last) {
    const { here, level } = /** @type {{here: string, level: string}} */ (last);
    const end = Number(here) > WIDTH - 40;
    const place = { x: end ? Number(here) : Number(here) + 5, y: Number(level) - 5, 'text-anchor': end ? 'end' : 'start' };
    shapes.push(shape('text', { class: `name ${NAMES[name]}`, ...place }, NAMES[name]));
  }
  return shapes;
}
