// Elements and values as text. Every value is set with textContent, so that no text of a job becomes markup.

export const find = (id) => document.getElementById(id);

/** Sets a text only if it differs, so that selections and screen readers are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/**
 * Fills a table. `columns` have a title, a class name, and `cell(row, td)`, which returns a text or sets the content of
 * the cell itself. Rows keep their elements by `key`, so that the focus stays where it is. `empty` is shown without rows.
 */
export function fill(table, columns, rows, key, empty) {
  if (!table.tHead) {
    const line = table.createTHead().insertRow();
    for (const column of columns) {
      const head = make("th", column.className, column.title);
      head.scope = "col";
      line.append(head);
    }
    table.createTBody();
    table.createCaption();
  }
  setText(table.caption, rows.length ? "" : empty);
  show(table.caption, !rows.length);
  show(table.tHead, rows.length > 0);
  const body = table.tBodies[0];
  const known = new Map(Array.from(body.rows, (line) => [line.dataset.key, line]));
  let at = 0;
  for (const row of rows) {
    const name = String(key(row));
    let line = known.get(name);
    if (line) known.delete(name);
    else {
      line = make("tr");
      line.dataset.key = name;
      columns.forEach((column, index) => {
        const cell = make(index ? "td" : "th", column.className);
        if (!index) cell.scope = "row";
        line.append(cell);
      });
    }
    columns.forEach((column, index) => {
      const text = column.cell(row, line.cells[index]);
      if (text !== undefined) setText(line.cells[index], text);
    });
    if (body.rows[at] !== line) body.insertBefore(line, body.rows[at] ?? null);
    at += 1;
  }
  for (const line of known.values()) line.remove();
}

/** Fills a list of names and values; a value of null is left out. */
export function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  while (list.children.length > 2 * shown.length) list.lastChild.remove();
  shown.forEach(([name, value], at) => {
    if (list.children.length < 2 * at + 2) list.append(make("dt"), make("dd"));
    setText(list.children[2 * at], name);
    setText(list.children[2 * at + 1], String(value));
  });
}

/** Fills a list of lines. */
export function lines(list, texts) {
  while (list.children.length > texts.length) list.lastChild.remove();
  texts.forEach((text, at) => {
    if (list.children.length <= at) list.append(make("li"));
    setText(list.children[at], text);
  });
}

/** A progress bar with its text in a cell. */
export function bar(cell, done, all, text) {
  if (!cell.firstChild) cell.append(make("progress"), make("span"));
  const [progress, label] = cell.children;
  progress.max = Math.max(all, 1);
  progress.value = done;
  progress.setAttribute("aria-label", text);
  setText(label, ` ${text}`);
}

/** A text with a class in a cell. */
export function marked(cell, text, className) {
  if (cell.className !== className) cell.className = className;
  return text;
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number);
/** A number with its noun, which is given in the singular. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; number >= 1024 && at < units.length - 1; at += 1) number /= 1024;
  return `${at ? number.toFixed(1) : number} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export const words = (name) => name.replaceAll("_", " ");

/** A time of the answers in the browser's time zone. */
export const time = (text) => (text ? new Date(text).toLocaleString() : "");
