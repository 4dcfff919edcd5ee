/* The leaderboard: rows are hidden by filters, sorted by their headings, and opened. */

const HIGHEST = new Set(["metric", "delta", "auroc", "rate", "reduction", "retained", "explained"]);
const lines = new Map(all("#leaderboard tr[data-row]").map((line) => [Number(line.dataset.row), line]));
const links = new Map(all("#leaderboard [data-open]").map((link) => [Number(link.dataset.open), link.getAttribute("href")]));
const tablesById = new Map(data.tables.map((table) => [table.id, table]));

const tableOf = (row) => tablesById.get(row.table);
const rowOf = (id) => data.rows[id] ?? data.failed[id - data.rows.length];

/** Say where a row's file is, as the leaderboard's link does. */
const linkOf = (row) => links.get(row.id);

/** Read what a row's table shows in one of its columns. */
function textOf(row, column) {
  return lines.get(row.id).cells[tableOf(row).columns.indexOf(column)].textContent;
}

function startTables() {
  for (const head of all("#leaderboard th[data-column]")) startHeading(head);
  document.addEventListener("click", openClicked);
  for (const line of all("tr[data-row]")) line.classList.add("opens");
  listeners.push(showTables);
}

function startHeading(head) {
  const name = head.dataset.column;
  const button = make("button", { type: "button", click: () => change({ order: following(name) }) }, head.textContent.trim());
  head.replaceChildren(button);
}

/** Say which order comes after the present one: the best first, then the worst, then by rank. */
function following(name) {
  return state.order === name ? `-${name}` : state.order === `-${name}` ? "" : name;
}

function openClicked(event) {
  const link = event.target.closest("[data-open]");
  const line = event.target.closest("tr[data-row]");
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button || (!link && !line)) return;
  if (!link && (event.target.closest("a, button, input") || !getSelection().isCollapsed)) return;
  event.preventDefault();
  openRecord(Number(link ? link.dataset.open : line.dataset.row));
}

function showTables(now) {
  for (const element of all("[data-row]")) element.hidden = !fits(rowOf(Number(element.dataset.row)));
  for (const board of all("#leaderboard .board")) showBoard(board, now.order);
  for (const part of all(".family")) {
    part.hidden = !one("tr[data-row]:not([hidden])", part);
    for (const body of all("tbody", part)) body.hidden = !one("tr[data-row]:not([hidden])", body);
  }
  const nothing = one("#nothing");
  if (nothing) nothing.hidden = all("#leaderboard .board:not([hidden])").length > 0;
}

function showBoard(board, order) {
  const rows = all("tbody tr", board);
  const shown = rows.filter((line) => !line.hidden);
  const failed = all(".failed li", board);
  const lost = failed.filter((line) => !line.hidden);
  board.hidden = shown.length + lost.length === 0;
  for (const part of all(".facts, .scroll, .notes", board)) part.hidden = shown.length === 0;
  for (const part of all("h4, .failed", board)) part.hidden = lost.length === 0;
  if (!rows.length) return;
  const some = shown.length < rows.length ? `${shown.length} of ` : "";
  one(".shown", board).textContent = `${some}${rows.length} rows`;
  sortBoard(board, rows, order);
}

function sortBoard(board, rows, order) {
  const name = order.replace("-", "");
  const columns = tablesById.get(board.dataset.table).columns;
  const column = columns.find((each) => each.name === name);
  const ways = HIGHEST.has(name) !== order.startsWith("-") ? -1 : 1;
  const sorted = rows
    .map((line) => ({ line, id: Number(line.dataset.row), value: column ? valueOf(data.rows[line.dataset.row], column) : null }))
    .sort((a, b) => byValue(a, b, ways));
  if (sorted.some(({ line }, place) => line !== rows[place])) one("tbody", board).append(...sorted.map(({ line }) => line));
  for (const head of all("th[data-column]", board)) {
    if (column && head.dataset.column === name) head.setAttribute("aria-sort", ways < 0 ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

/** Compare two rows; what has no value comes last, and equal ones keep their ranks' order. */
function byValue(a, b, ways) {
  if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.id - b.id;
  const apart = typeof a.value === "string" ? a.value.localeCompare(b.value, "en") : a.value - b.value;
  return ways * apart || a.id - b.id;
}

function valueOf(row, column) {
  const values = column.keys.map((key) => row[key]);
  if (!column.number) return values[0] ?? null;
  return values.find((value) => typeof value === "number") ?? null;
}
