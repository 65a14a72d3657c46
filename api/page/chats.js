// @ts-check
/** The list of chats: links, so that each can be opened in a tab of its own. */

/** @typedef {import('./store.js').Entry} Entry */

export class ChatList {
  /** @param {HTMLElement} root  an ordered list */
  constructor(root) {
    this.root = root;
  }

  /** Show these chats, the open one marked. */
  show(/** @type {Entry[]} */ entries, /** @type {string} */ open) {
    const focused = document.activeElement instanceof HTMLAnchorElement ? document.activeElement.hash : '';
    this.root.replaceChildren(...entries.map((entry) => this.row(entry, entry.id === open)));
    if (focused)
      [...this.root.querySelectorAll('a')].find((link) => link.hash === focused)?.focus({ preventScroll: true });
  }

  row(/** @type {Entry} */ entry, /** @type {boolean} */ isOpen) {
    const link = document.createElement('a');
    link.href = `#${entry.id}`;
    link.textContent = link.title = entry.title;
    link.dir = 'auto';
    if (isOpen) link.ariaCurrent = 'page';
    const row = document.createElement('li');
    row.append(link);
    return row;
  }
}

/** Let the title of a chat be changed where it stands; call back with the new one, or not at all. */
export function editTitle(
  /** @type {HTMLElement} */ title,
  /** @type {string} */ before,
  /** @type {(title: string) => void} */ renamed,
) {
  const field = document.createElement('input');
  field.value = before;
  field.ariaLabel = 'Title of this chat';
  field.maxLength = 80;
  let done = false;
  const end = (/** @type {boolean} */ keep) => {
    if (done) return;
    done = true;
    field.replaceWith(title);
    if (keep && field.value.trim() !== before) renamed(field.value);
  };
  field.addEventListener('blur', () => end(true));
  field.addEventListener('keydown', (event) => {
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
    event.preventDefault();
    event.stopPropagation(); // Escape is no Stop here
    end(event.key === 'Enter');
  });
  title.replaceWith(field);
  field.select();
}
