/* How well a model tells classes apart. */

function evaluationPart(facts, evidence, pictures) {
  const text = pairs(facts, "accuracy");
  const found = evidence.evaluation;
  if (!found) return part("Evaluation", text, missing(evidence.reasons.evaluation));
  return part(
    "Evaluation",
    text,
    found.notes.length ? make("ul", { class: "notes" }, found.notes.map((note) => make("li", {}, note))) : null,
    make("div", { class: "two" }, confusionPart(found), calibrationPart(found)),
    make("div", { class: "two" },
      curvesPart(found, "roc", "ROC curves", "Area under the ROC curve"),
      curvesPart(found, "precision_recall", "Precision-recall curves", "Average precision")),
    statisticsPart(found),
    worstPart(facts, found, evidence, pictures),
  );
}

function statisticsPart(found) {
  if (!found.statistics.length) return null;
  const ends = (line) => (line.low === null ? "" : `${general(line.low, 4)} – ${general(line.high, 4)}`);
  const lines = found.statistics.map((line) => [line.what, general(line.value, 4), ends(line)]);
  return grid("Each sample counts for itself; edgebench validate knows patients", ["statistic", "#value", "#95 % interval"], lines);
}

function confusionPart(found) {
  if (!found.confusion?.length) return missing("a confusion matrix");
  const counts = chart("confusion", found, "Confusion matrix: counts");
  const shares = chart("confusion_normalised", found, "Confusion matrix: shares of each true class");
  shares.hidden = true;
  const box = make("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    [counts.hidden, shares.hidden] = [box.checked, !box.checked];
    one(".canvas", box.checked ? shares : counts).drawChart();
  });
  const headings = ["true", ...found.confusion[0].predicted.map((name) => `#${name}`)];
  const lines = found.confusion.map((line) => [line.true, ...line.count.map(String)]);
  return make("div", {},
    counts, shares,
    make("label", { class: "switch" }, box, make("span", {}, "as shares of each true class")),
    folded("as a table", grid("Confusion matrix, counts: true classes by rows, decisions by columns", headings, lines)));
}

function calibrationPart(found) {
  const [line] = found.calibration ?? [];
  if (!line) return missing("a calibration curve");
  const headings = ["confidence", "#mean confidence", "#right", "#samples"];
  const lines = line.count.map((count, bin) => [
    `${general(line.begin[bin], 3)} – ${general(line.end[bin], 3)}`,
    ...[share(line.confidence[bin]), share(line.accuracy[bin]), `${count}`],
  ]);
  return make("div", {},
    chart("calibration", found, `Calibration: expected calibration error ${share(line.ece)}`),
    folded("as a table", grid("Calibration by confidence", headings, lines)));
}

function curvesPart(found, name, title, caption) {
  const curves = found[name];
  if (!curves?.length) return missing(`${title}, not defined on these labels`);
  const lines = curves.map((curve) => [curve.curve, general(curve.area, 5)]);
  return make("div", {},
    chart(name, found, title),
    folded(caption, grid(caption, ["curve", "#area"], lines)));
}

function worstPart(facts, found, evidence, pictures) {
  if (!found.worst?.length) return null;
  const held = pictures?.[facts.split] ?? {};
  const absent = found.worst.some((sample) => !(sample.index in held));
  return make("div", { class: "worst" },
    make("h4", {}, "Worst samples"),
    absent ? missing(evidence.reasons.pictures ?? "some pictures, which this page has no room for") : null,
    make("ul", {}, found.worst.map((sample) => worstSample(sample, held[sample.index]))));
}

function worstSample(sample, picture) {
  const words = [`true ${sample.truth}`, `decided ${sample.decision}`, share(sample.confidence)];
  const name = `sample ${sample.index}`;
  return make("li", {},
    picture ? make("img", { src: `data:image/png;base64,${picture}`, alt: name }) : make("span", { class: "blank" }, name),
    words.map((text) => make("span", {}, text)));
}
