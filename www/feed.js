// A list with the newest on top that never grows beyond its bound, however fast things come: between two frames only
// what will be seen is kept.

export class Feed {
  #list;
  #rowsMax;
  #render;
  #waiting = [];
  #scheduled = false;

  /** `render` makes the `li` of an item. */
  constructor(list, rowsMax, render) {
    this.#list = list;
    this.#rowsMax = rowsMax;
    this.#render = render;
  }

  add(item) {
    this.#waiting.push(item);
    if (this.#waiting.length > this.#rowsMax) this.#waiting.shift();
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => this.#flush());
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
  }

  #flush() {
    this.#scheduled = false;
    const rows = this.#waiting.map((item) => this.#render(item)).reverse();
    this.#waiting = [];
    this.#list.querySelector('.empty')?.remove();
    this.#list.prepend(...rows);
    while (this.#list.childElementCount > this.#rowsMax) this.#list.lastElementChild.remove();
  }
}

/** An element with a class and texts or elements inside. */
export function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className !== '') made.className = className;
  made.append(...content);
  return made;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

export function time(at) {
  const made = element('time', '', clock.format(at));
  made.dateTime = new Date(at).toISOString();
  return made;
}
