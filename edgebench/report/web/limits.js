/* "Choose for me": limits as on the command line, what remains, and what each other row breaks. */

function startLimits() {
  const form = one("#limits");
  if (!form) return;
  form.hidden = false;
  one(".command").hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => change(wishes(form), true));
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change({ limits: {}, best: SINGLE.best });
  });
  one("#copy").addEventListener("click", copyCommand);
  listeners.push(showLimits);
}

function wishes(form) {
  const limits = {};
  for (const name of LIMITS) {
    const text = form.elements[name].value.trim();
    if (text) limits[name] = text;
  }
  return { limits, best: form.elements.sort.value };
}

function showLimits({ limits, best }) {
  const form = one("#limits");
  const read = {};
  const wrong = LIMITS.filter((name) => limits[name] && quantity(name, limits[name]) === null);
  for (const name of LIMITS) {
    const field = form.elements[name];
    if (field.value.trim() !== (limits[name] ?? "")) field.value = limits[name] ?? "";
    field.setAttribute("aria-invalid", wrong.includes(name));
    one(`#wrong-${name}`).textContent = wrong.includes(name) ? `not understood; write it like ${KINDS[name].example}` : "";
    if (limits[name] && !wrong.includes(name)) read[name] = quantity(name, limits[name]);
  }
  form.elements.sort.value = best;
  one("#command").textContent = command();
  showChoice(choose(read, best), wrong, Object.keys(read).length);
}

function showChoice(groups, wrong, limited) {
  const kept = groups.reduce((sum, group) => sum + group.kept.length, 0);
  const count = groups.reduce((sum, group) => sum + group.kept.length + group.excluded.length, 0);
  const some = `${kept} of ${count} ${count === 1 ? "row" : "rows"}`;
  const words = kept ? `${some} keep to your limits.` : "Nothing keeps to these limits.";
  const free = `No limit is set: ${some} can be chosen.`;
  one("#verdict").textContent = wrong.length ? "A limit was not understood." : limited ? words : free;
  one("#choice").replaceChildren(...(wrong.length ? [] : groups.map(choiceOf)));
}

function choiceOf(group) {
  const best = group.kept[0];
  return make(
    "article",
    { class: "choice" },
    make("h3", {}, group.title),
    best
      ? make("p", { class: "best" }, "Best: ", opener(best, `${best.model}, ${best.format} ${best.precision}`))
      : make("p", { class: "best none" }, "Nothing keeps to these limits."),
    group.kept.length ? keptTable(group) : null,
    group.excluded.length ? excludedList(group) : null,
  );
}

function keptTable(group) {
  const headings = columnsOf(group.kept[0]).map((column) => (column.number ? "#" : "") + column.heading);
  const lines = group.kept.map((row) => columnsOf(row).map((column) => shownIn(row, column)));
  return grid(`What keeps to the limits, best first: ${group.title}`, headings, lines);
}

function excludedList(group) {
  const lines = group.excluded.map(([row, reasons]) =>
    make("li", {}, opener(row, `${row.model} ${row.format} ${row.precision}`), `: ${reasons.join("; ")}`));
  const count = group.excluded.length;
  const summary = make("summary", {}, `${count} left out, and why`);
  return make("details", { class: "excluded" }, summary, make("ul", {}, lines));
}

function shownIn(row, column) {
  const text = textOf(row, column);
  if (column.name === "model") return opener(row, text);
  return column.name === "verdict" ? badge(text) : text;
}

/** List the columns of a row's table that a choice shows. */
function columnsOf(row) {
  const table = tableOf(row);
  return data.chosen.map((name) => table.columns.find((column) => column.name === name));
}

/** Make a link that opens a row's record. */
function opener(row, text) {
  return make("a", { href: linkOf(row), "data-open": row.id }, text);
}

async function copyCommand() {
  const text = one("#command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(one("#command"));
    return;
  }
  one("#copy").textContent = "Copied";
  setTimeout(() => (one("#copy").textContent = "Copy"), 1500);
}
