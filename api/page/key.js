// @ts-check
/** The API key, where the server wants one: kept for this tab's session only, and sent in a header only. */

const KEY = 'rejoin.key';

/** @returns {string | null} */
export function loadKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export function saveKey(/** @type {string | null} */ key) {
  try {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  } catch {
    // It lasts as long as the page, then.
  }
}
