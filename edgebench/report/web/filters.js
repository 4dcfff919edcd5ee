/* The filters above everything: they act on charts, tables, families and choice. */

function startFilters() {
  const form = one("#filters");
  if (!form) return;
  form.hidden = false;
  form.addEventListener("change", () => change({ facets: chosenFacets(form) }));
  form.addEventListener("submit", (event) => event.preventDefault());
  one("#clear").addEventListener("click", () => change({ facets: {} }));
  for (const menu of all("details.menu", form)) startMenu(menu);
  document.addEventListener("click", (event) => {
    for (const menu of all("details.menu[open]", form)) if (!menu.contains(event.target)) menu.open = false;
  });
  listeners.push(showFilters);
}

function startMenu(menu) {
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    one("summary", menu).focus();
  });
}

function chosenFacets(form) {
  const facets = {};
  for (const box of all("input:checked", form)) (facets[box.name] ??= []).push(box.value);
  return facets;
}

function showFilters({ facets }) {
  for (const box of all("#filters input")) box.checked = (facets[box.name] ?? []).includes(box.value);
  for (const menu of all("#filters details.menu")) {
    const values = facets[menu.dataset.filter] ?? [];
    one(".value", menu).textContent = values.length > 1 ? `${values.length} chosen` : (values[0] ?? "all");
    menu.classList.toggle("active", values.length > 0);
  }
  one("#clear").disabled = Object.keys(facets).length === 0;
  const count = data.rows.filter(fits).length;
  one("#found").textContent = `${count} of ${data.rows.length} ${data.rows.length === 1 ? "row" : "rows"}`;
}
