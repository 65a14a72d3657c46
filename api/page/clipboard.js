// @ts-check
/** Copying, also where the page is served over plain HTTP and browsers offer no clipboard. */

const SHOWN_MS = 1500;

/** Copy a text; say whether that went well. */
async function copy(/** @type {string} */ text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'unseen';
    area.ariaHidden = 'true';
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
    return done;
  }
}

/** Return a button that copies what `text` returns, and says for a moment whether it has. */
export function copyButton(/** @type {string} */ name, /** @type {() => string} */ text) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'small';
  button.textContent = name;
  button.addEventListener('click', async () => {
    button.textContent = (await copy(text())) ? 'Copied' : 'Not copied';
    setTimeout(() => (button.textContent = name), SHOWN_MS);
  });
  return button;
}
