/* What the page shows is what its address says after the `#`: it can be sent to others, and the back button works. */

const FACETS = data.filters;
const SINGLE = { axis: "p50", colours: "variant", best: "metric", order: "", record: "" };
const KNOWN = { axis: data.axes, colours: data.colours, best: Object.keys(data.orders) };
const LIMITS = data.kinds.map((kind) => kind.name);
const listeners = [];
let state = readState();

function readState() {
  const said = new URLSearchParams(location.hash.slice(1));
  const found = { facets: {}, limits: {} };
  for (const name of FACETS) {
    const values = said.getAll(name);
    if (values.length) found.facets[name] = values;
  }
  for (const name of LIMITS) if (said.get(name)) found.limits[name] = said.get(name);
  for (const [name, usual] of Object.entries(SINGLE)) {
    const value = said.get(name) ?? usual;
    found[name] = KNOWN[name]?.includes(value) === false ? usual : value;
  }
  return found;
}

function written(wanted) {
  const said = new URLSearchParams();
  for (const name of FACETS) for (const value of wanted.facets[name] ?? []) said.append(name, value);
  for (const name of LIMITS) if (wanted.limits[name]) said.append(name, wanted.limits[name]);
  for (const [name, usual] of Object.entries(SINGLE)) if (wanted[name] !== usual) said.append(name, wanted[name]);
  const text = said.toString();
  return location.pathname + location.search + (text ? `#${text}` : "");
}

/** Change the state; `typing` replaces the last entry of the history, else it becomes one of its own. */
function change(changes, typing = false) {
  const next = { ...state, ...changes };
  history[typing ? "replaceState" : "pushState"](null, "", written(next));
  show(next);
}

function show(next) {
  state = next;
  for (const listen of listeners) listen(state);
}

addEventListener("popstate", () => show(readState()));

/** Say whether a row, or a failed cell, fits the filters. */
function fits(row) {
  return Object.entries(state.facets).every(([name, values]) => values.includes(row[name]));
}
