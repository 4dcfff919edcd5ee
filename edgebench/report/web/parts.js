/* What is behind one record, part by part; a part that is missing says why. */

const share = (value) => `${fixed(100 * value, 1)} %`;
const known = (value) => (value === null || value === undefined ? "–" : `${milliseconds(value)} ms`);

function part(title, ...children) {
  return make("section", { class: "part" }, make("h3", {}, title), ...children);
}

function missing(reason) {
  return make("p", { class: "missing" }, reason ? `Not here: ${reason}.` : "Not here.");
}

/** List the lines of some of a record's sections, each what it is and what it says. */
function pairs(facts, ...titles) {
  const found = facts.sections.filter(([title]) => titles.includes(title)).flatMap(([, pairs]) => pairs);
  return found.length ? terms("pairs", found) : null;
}

/** Make a place for a chart, which is drawn once it stands in the page. */
function chart(name, evidence, label) {
  const holder = make("div", { class: `canvas ${name}` });
  holder.drawChart = async () => {
    const { record } = await unpackOnce("charts");
    await draw(holder, record[name], evidence, label);
  };
  return make("figure", { class: "plot" }, make("figcaption", {}, label), holder);
}

function verdictPart(facts) {
  const list = facts.reasons.map((reason) => make("li", {}, reason));
  const calm = facts.word === "VALID" && !list.length ? "Nothing speaks against these numbers." : null;
  return part("Verdict", make("p", {}, badge(facts.word), " ", calm), list.length ? make("ul", {}, list) : null);
}

function latencyPart(facts, evidence) {
  const text = pairs(facts, "latency");
  if (!evidence.trials) return part("Latency", text, missing(evidence.reasons.trials));
  return part(
    "Latency",
    text,
    make("div", { class: "two" },
      chart("ecdf", evidence, "Share of samples that are no slower, by trial"),
      chart("violin", evidence, "How densely samples lie, by trial")),
    trialsTable(facts, evidence.trials),
  );
}

function trialsTable(facts, trials) {
  const medians = facts.medians.length === trials.length ? facts.medians : [];
  const rows = trials.map((trial, place) => [
    ...[`${trial.trial}`, known(medians[place]), `${trial.samples}`],
    ...[known(trial.load_ns), known(trial.first_ns), trial.settled ? "yes" : "no"],
  ]);
  const headings = ["trial", "#median", "#samples", "#load", "#first inference", "settled"];
  return grid("Trials, each in a process of its own", headings, rows);
}

function seriesPart(evidence) {
  if (!evidence.series && !evidence.conditions) return part("Over time", missing(evidence.reasons.series));
  const sets = filled(evidence, "series", "conditions", "onset");
  const told = sets.conditions.length > 0;
  return part(
    "Over time",
    chart(told ? "series" : "series_alone", sets, "Median latency over time, with temperature and clock where the device told them"),
    told ? rangesTable("Read beside the samples", sets.conditions, "what", "value") : missing(evidence.reasons.conditions),
  );
}

function powerPart(facts, evidence) {
  const sections = facts.sections.map(([title]) => title).filter((title) => title.startsWith("energy of "));
  const text = [pairs(facts, "energy"), ...sections.flatMap((title) => [make("h4", {}, title), pairs(facts, title)])];
  if (!evidence.power) return part("Power and energy", ...text, missing(evidence.reasons.power));
  return part(
    "Power and energy",
    ...text,
    chart("power", filled(evidence, "power", "stretches"), "Power over time; idle stretches and those of samples are shaded"),
    rangesTable("Power by rail, watts", evidence.power, "source", "watts"),
  );
}

/** Draw how the model was trained; of one that was brought nothing is known, and nothing is said. */
function trainingPart(evidence) {
  const lines = evidence.training;
  if (!lines) return null;
  const told = lines.filter((line) => line.panel !== "kept");
  const rows = told[0].epoch.map((epoch, place) => [`${epoch}`, ...told.map((line) => general(line.value[place], 4))]);
  const headings = ["epoch", ...told.map((line) => `#${line.what}`)];
  return part(
    "Training",
    chart("training", { training: lines }, "Losses and validation metric after each epoch; the point is the epoch that was kept"),
    folded("as a table", grid("Losses and validation metric by epoch", headings, rows)),
  );
}

/** Give charts an empty list for what is missing. */
function filled(evidence, ...names) {
  return Object.fromEntries(names.map((name) => [name, evidence[name] ?? []]));
}

function rangesTable(caption, lines, name, values) {
  const rows = lines.map((line) => {
    const drawn = line[values];
    const mean = drawn.reduce((sum, value) => sum + value, 0) / drawn.length;
    return [line[name], ...[Math.min(...drawn), Math.max(...drawn), mean].map((value) => general(value, 4))];
  });
  return grid(caption, ["", "#lowest", "#highest", "#mean of the drawn points"], rows);
}
