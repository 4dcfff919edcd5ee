/* What a file looks at, and whether it looks there as another file does. */

function explanationsPart(evidence, pictures) {
  const found = evidence.explanations;
  if (!found?.length) return null;
  const sheets = [...new Set(found.map((each) => each.sheet).filter(Boolean))];
  return part(
    "Explanations",
    found.map((each) => [make("h4", {}, each.method), terms("pairs", each.lines)]).flat(),
    sheets.map((sheet) => sheetPart(pictures?.[sheet]?.[0])),
  );
}

function sheetPart(picture) {
  if (!picture) return missing("the pictures, which this page has no room for");
  const label = "Samples, and what each file looks at: red speaks for the class, blue against it";
  return make(
    "figure",
    { class: "plot" },
    make("figcaption", {}, label),
    make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label },
      make("img", { class: "maps", src: `data:image/png;base64,${picture}`, alt: label })),
  );
}
