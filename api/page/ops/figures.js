// @ts-check
/** Figures as people read them. */

/** Seconds, in two digits or so: `320 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`. @param {number | null | undefined} s */
export function duration(s) {
  if (s === null || s === undefined) return '–';
  if (s < 0.0995) return `${Number((s * 1000).toPrecision(2))} ms`;
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${Number(s.toPrecision(s < 10 ? 2 : 3))} s`;
  return age(s);
}

/** The same for what grows while one looks at it: whole seconds. @param {number | null | undefined} s */
export function age(s) {
  if (s === null || s === undefined) return '–';
  const whole = Math.floor(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** @param {number | null | undefined} number */
export function count(number) {
  return number === null || number === undefined ? '–' : number.toLocaleString('en');
}

/** A moment's time of day, here. @param {string} at */
export function clock(at, seconds = false) {
  return new Date(at).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', ...(seconds && { second: '2-digit' }) });
}
