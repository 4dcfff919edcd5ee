/* Which rows keep to the limits, and what each other one breaks: as `edgebench recommend` has it. */

const KINDS = Object.fromEntries(data.kinds.map((kind) => [kind.name, kind]));
const QUANTITY = /^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ%/]*)$/;

/** Read `20ms`, `5 MB` or `85%`; null where it is none. */
function quantity(name, text) {
  const found = QUANTITY.exec(text.trim());
  if (!found || !Object.hasOwn(KINDS[name].units, found[2])) return null;
  const value = Number(found[1]) * KINDS[name].units[found[2]];
  return Number.isFinite(value) ? value : null;
}

/** List the reasons why a row is no choice. */
function breaks(row, limits) {
  const reasons = row.verdict === "INVALID" ? ["its measurement is INVALID"] : [];
  for (const [name, limit] of Object.entries(limits)) {
    const kind = KINDS[name];
    const value = row[kind.key] ?? null;
    const text = SHOW[kind.show];
    const given = row.judged || name !== "min_metric";
    if (value === null) reasons.push(`${kind.what} is not known${given ? "" : ": no data set given"}`);
    else if (kind.highest ? value > limit : value < limit)
      reasons.push(`${kind.what} ${text(value)}, ${text(limit)} is the ${kind.highest ? "most" : "least"}`);
  }
  return reasons;
}

/** Divide each table's rows that fit the filters; limits: nanoseconds, bytes, joules or shares of 1. */
function choose(limits, best) {
  return data.orders[best]
    .map((group) => {
      const found = { title: group.title, kept: [], excluded: [] };
      for (const row of group.rows.map((id) => data.rows[id]).filter(fits)) {
        const reasons = breaks(row, limits);
        if (reasons.length) found.excluded.push([row, reasons]);
        else found.kept.push(row);
      }
      return found;
    })
    .filter((group) => group.kept.length + group.excluded.length);
}

/** Quote for a shell, where it must be. */
function quoted(text) {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

/** Write a value as a pattern that fits it alone; a comma would end it. */
function pattern(value) {
  return value.replace(/[[*?]/g, "[$&]").replaceAll(",", "?");
}

/** Write the command line that chooses alike. */
function command() {
  const words = ["edgebench", "recommend", data.command.results];
  for (const name of LIMITS)
    if (state.limits[name]) words.push(`--${name.replaceAll("_", "-")}`, state.limits[name]);
  if (state.best !== SINGLE.best) words.push("--sort", state.best);
  if (data.command.by) words.push("--by", data.command.by);
  const where = { ...data.command.where };
  for (const [name, values] of Object.entries(state.facets)) where[name] = values.map(pattern);
  for (const [name, patterns] of Object.entries(where)) words.push("--where", `${name}=${patterns.join(",")}`);
  return words.map(quoted).join(" ");
}
