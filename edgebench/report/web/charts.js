/* Charts: drawn by Vega when they come into view, and read by pointer, keyboard and screen reader. */

const ERRORS = 1;
let loading = null;
const views = new Map();

/** Start what draws the charts; the page's policy knows it by its hash. */
async function loadVega() {
  const program = make("script");
  program.textContent = await unzip(one("#vega"));
  document.head.append(program);
}

function isDark() {
  return getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/** Draw a chart into an element, in the place of what was there. */
async function draw(holder, spec, datasets, label) {
  await (loading ??= loadVega());
  const { themes } = await unpackOnce("charts");
  const theme = themes[isDark() ? "dark" : "light"];
  const legend = { ...theme.legend, columns: Math.max(1, Math.floor(holder.clientWidth / 175)) };
  const fresh = make("div");
  const turn = (holder.turn = (holder.turn ?? 0) + 1);
  holder.append(fresh);
  const result = await vegaEmbed(fresh, { ...sized(spec, holder.clientWidth), datasets }, {
    actions: false,
    logLevel: ERRORS,
    ast: true,
    config: { ...theme, legend },
    mode: "vega-lite",
    renderer: "svg",
    tooltip: (_, event, item, value) => (value ? showTip(tipOf(item, value), event.clientX, event.clientY) : hideTip()),
  });
  if (turn !== holder.turn) return discard(result, fresh);
  release(holder);
  views.set(holder, result);
  holder.replaceChildren(fresh);
  fresh.setAttribute("aria-label", label);
  return result.view;
}

/** Drop a chart that was overtaken by another. */
function discard(result, fresh) {
  result.finalize();
  fresh.remove();
  return null;
}

/** Make a chart as wide as its holder; of several views, each. */
function sized(spec, width) {
  if (!spec.vconcat) return { ...spec, width: "container" };
  return { ...spec, vconcat: spec.vconcat.map((view) => widened(view, Math.max(160, width - 70))) };
}

function widened(view, width) {
  return view.spec ? { ...view, spec: { ...view.spec, width } } : { ...view, width };
}

function release(holder) {
  views.get(holder)?.finalize();
  views.delete(holder);
}

// ---------------------------------------------------------------- what a pointer or the focus is at

function tipOf(item, value) {
  const row = data.rows.find((each) => each.record === item?.datum?.record);
  if (row) return rowTip(row);
  if (typeof value !== "object") return [String(value)];
  return [make("dl", {}, Object.entries(value).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, String(text))]))];
}

function rowTip(row) {
  const shown = columnsOf(row).filter((column) => !["model", "format", "precision"].includes(column.name));
  const list = shown.flatMap((column) => [make("dt", {}, column.heading), make("dd", {}, textOf(row, column) || "–")]);
  return [make("b", {}, `${row.model} ${row.format} ${row.precision}`), make("dl", {}, list)];
}

function showTip(children, x, y) {
  const tip = one("#tip");
  tip.replaceChildren(...children);
  tip.hidden = false;
  (one("dialog[open]") ?? document.body).append(tip);
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 14 + height > innerHeight ? Math.max(4, y - height - 14) : y + 14}px`;
}

function hideTip() {
  one("#tip").hidden = true;
}

// ---------------------------------------------------------------- trade-offs

const waiting = new Set();
const inView = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    target.seen = isIntersecting;
    if (isIntersecting && waiting.delete(target)) drawTradeoff(target);
  }
}, { rootMargin: "300px" });

function startCharts() {
  const holders = all("[data-chart=tradeoff]");
  if (!holders.length) return;
  one("#axis").hidden = one("#by").hidden = false;
  one("#axis").addEventListener("change", (event) => change({ axis: event.target.value }));
  one("#by select").addEventListener("change", (event) => change({ colours: event.target.value }));
  for (const holder of holders) startHolder(holder);
  listeners.push((now) => showTradeoffs(now, holders));
}

function startHolder(holder) {
  inView.observe(holder);
  holder.addEventListener("keydown", (event) => moveAmongPoints(event, holder));
  holder.addEventListener("focusin", (event) => tipAt(event.target));
  holder.addEventListener("focusout", hideTip);
}

function showTradeoffs(now, holders) {
  for (const box of all("#axis input")) box.checked = box.value === now.axis;
  one("#by select").value = now.colours;
  for (const holder of holders) {
    const rows = rowsOf(holder);
    holder.closest("figure").hidden = rows.length === 0;
    const wanted = JSON.stringify([now.axis, now.colours, rows.map((row) => row.id)]);
    if (holder.wanted !== wanted) redrawSoon(holder, wanted);
  }
}

function redrawSoon(holder, wanted) {
  holder.wanted = wanted;
  if (holder.seen) drawTradeoff(holder);
  else waiting.add(holder);
}

function rowsOf(holder) {
  return data.rows.filter((row) => row.table === holder.dataset.table && fits(row));
}

async function drawTradeoff(holder) {
  const { tradeoff } = await unpackOnce("charts");
  const table = tablesById.get(holder.dataset.table);
  const spec = tradeoff[table.headline][state.axis][state.colours];
  const rows = rowsOf(holder);
  const source = state.axis === "energy" ? sourceOf(holder, rows) : null;
  one(".source", holder.closest("figure")).hidden = state.axis !== "energy";
  const label = `${table.headline || "cost"} against ${state.axis}, ${rows.length} rows; the table ${table.title} has the same figures`;
  const view = await draw(holder, source ? { ...spec, params: [{ name: "source", value: source }] } : spec, { rows }, label);
  if (!view) return;
  view.addEventListener("click", (event, item) => openByRecord(item?.datum?.record));
  namePoints(holder);
}

/** Offer the sources of energy where there are several, which no chart mixes; returns the one that is chosen. */
function sourceOf(holder, rows) {
  const known = rows.filter((row) => row.energy_provenance && row.energy_joules !== undefined);
  const sources = [...new Set(known.map((row) => `${row.energy_provenance} ${row.energy_rail ?? ""}`.trim()))].sort();
  if (!sources.includes(holder.source)) holder.source = sources[0] ?? null;
  const figure = holder.closest("figure");
  const choices = sources.map((source) => make("option", { selected: source === holder.source }, source));
  const select = make("select", { "aria-label": "Source of the energy" }, choices);
  select.addEventListener("change", () => {
    holder.source = select.value;
    drawTradeoff(holder);
  });
  one(".source", figure).replaceChildren(...(sources.length > 1 ? ["energy of ", select] : []));
  return holder.source;
}

/** Let the keyboard reach the points: one stop for each chart, arrows within. */
function namePoints(holder) {
  holder.points = all("path", holder)
    .filter(({ __data__: item }) => item?.mark?.marktype === "symbol" && item.datum?.record)
    .sort((a, b) => a.__data__.x - b.__data__.x);
  holder.points.forEach((point, place) => {
    const row = data.rows.find((each) => each.record === point.__data__.datum.record);
    point.setAttribute("tabindex", place ? -1 : 0);
    point.setAttribute("role", "button");
    point.setAttribute("aria-label", spoken(row));
    point.classList.add("point");
  });
}

function spoken(row) {
  const shown = columnsOf(row).filter((column) => textOf(row, column));
  return shown.map((column) => (column.number ? `${column.heading} ${textOf(row, column)}` : textOf(row, column))).join(", ");
}

function tipAt(point) {
  const row = data.rows.find((each) => each.record === point.__data__?.datum?.record);
  if (!row || !point.matches(":focus-visible")) return;
  const { right, bottom } = point.getBoundingClientRect();
  showTip(rowTip(row), right, bottom);
}

function moveAmongPoints(event, holder) {
  const place = holder.points?.indexOf(event.target) ?? -1;
  if (place < 0) return;
  if (event.key === "Enter" || event.key === " ") openByRecord(event.target.__data__.datum.record);
  const last = holder.points.length - 1;
  const steps = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: last };
  if (!(event.key in steps) && event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  const next = holder.points[Math.min(last, Math.max(0, steps[event.key] ?? place))];
  event.target.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  if (event.key in steps) next.focus();
}
