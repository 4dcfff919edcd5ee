/* One record: a dialog with all that is known of it. The address names it, so that it can be sent to others. */

const UNREAD = "the samples were not read for this page";
const REASONS = Object.fromEntries(["trials", "series", "power", "evaluation"].map((name) => [name, UNREAD]));
let opened = "";
let came = null;

function startRecord() {
  const dialog = one("#record");
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    closeRecord();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && closeRecord());
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.altKey) event.preventDefault();
    if (step && event.altKey) openBeside(step);
  });
  listeners.push(showRecord);
}

function openRecord(id) {
  change({ record: rowOf(id).record });
}

function openByRecord(record) {
  if (record) change({ record });
}

function closeRecord() {
  change({ record: "" });
}

/** Open the row before or after, among those that are shown. */
function openBeside(step) {
  const shown = [...data.rows, ...data.failed].filter(fits);
  const place = shown.findIndex((row) => row.record === opened);
  const next = shown[place + step];
  if (next) change({ record: next.record }, true);
}

function showRecord(now) {
  const row = [...data.rows, ...data.failed].find((each) => each.record === now.record);
  const dialog = one("#record");
  if ((row?.record ?? "") === opened) return;
  hideTip();
  for (const holder of all(".canvas", dialog)) release(holder);
  opened = row?.record ?? "";
  if (row) fillRecord(dialog, row);
  else leave(dialog);
}

function leave(dialog) {
  document.body.append(one("#tip"));
  dialog.close();
  came?.focus?.({ preventScroll: true });
}

async function fillRecord(dialog, row) {
  if (!dialog.open) {
    came = document.activeElement;
    dialog.showModal();
  }
  const sheet = one(".sheet");
  sheet.replaceChildren(heading(row), make("p", { class: "hint" }, "Reading …"));
  one(".close", sheet).focus();
  const [facts, pictures, evidence] = await Promise.all([unpackOnce("facts"), unpackOnce("pictures"), evidenceOf(row)]);
  if (opened !== row.record) return;
  const parts = partsOf(row, facts?.[row.id], evidence, pictures);
  one(".hint", sheet).replaceWith(...parts.filter(Boolean));
  dialog.scrollTop = 0;
  for (const holder of all(".canvas", sheet)) if (!holder.closest("[hidden]")) await holder.drawChart();
}

async function evidenceOf(row) {
  const found = await unpackOnce(`evidence-${Math.floor(row.id / data.together)}`);
  return found?.[row.id % data.together] ?? { reasons: REASONS };
}

function partsOf(row, facts, evidence, pictures) {
  if (!facts) return [missing("the record itself, which could not be read for this page")];
  const parts = [verdictPart(facts), environmentPart(facts), factsPart(facts)];
  if (!data.rows[row.id]) return parts;
  const measured = [latencyPart(facts, evidence), seriesPart(evidence), powerPart(facts, evidence)];
  const judged = [evaluationPart(facts, evidence, pictures), explanationsPart(evidence, pictures), trainingPart(evidence)];
  return [figures(row), parts[0], ...measured, ...judged, ...parts.slice(1)];
}

function heading(row) {
  const button = (text, label, click, extra = "") =>
    make("button", { type: "button", class: extra, "aria-label": label, title: label, click }, text);
  const where = `${row.dataset}, ${row.target}, ${row.mode}; ${row.role}; ${row.runtime}. `;
  return make(
    "header",
    {},
    make("div", {},
      make("h2", { id: "record-title" }, `${row.model} ${row.format} ${row.precision}`),
      make("p", {}, where, make("a", { href: linkOf(row) }, "The record as JSON"))),
    make("div", { class: "buttons" },
      button("‹", "Row before (Alt+Left)", () => openBeside(-1)),
      button("›", "Row after (Alt+Right)", () => openBeside(1)),
      button("×", "Close (Escape)", closeRecord, "close")),
  );
}

function figures(row) {
  const shown = tableOf(row).columns.filter((column) => column.number && column.name !== "rank" && textOf(row, column));
  return terms("figures", shown.map((column) => [column.heading, textOf(row, column)]));
}

/** List the rest of what people read of a record. */
function factsPart(facts) {
  const told = ["latency", "accuracy", "energy", "environment"];
  const rest = facts.sections.map(([title]) => title).filter((title) => !told.includes(title) && !title.startsWith("energy of "));
  return part(
    "Everything else",
    ...rest.flatMap((title) => [make("h4", {}, title), pairs(facts, title)]),
  );
}

function environmentPart(facts) {
  return part("Environment", pairs(facts, "environment") ?? missing("nothing is known of where it ran"));
}
