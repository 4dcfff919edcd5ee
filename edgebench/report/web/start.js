/* Colours, jumps within the page, and the start. */

function startTheme() {
  const button = one("#theme");
  button.hidden = false;
  button.addEventListener("click", () => useTheme(isDark() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => useTheme(kept()));
  useTheme(kept());
}

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  try {
    if (theme) localStorage.setItem("edgebench-theme", theme);
  } catch {
    // a page from disk may not be allowed to keep anything
  }
  one("#theme").textContent = isDark() ? "Light colours" : "Dark colours";
  for (const holder of views.keys()) {
    if (holder.drawChart) holder.drawChart();
    else redrawSoon(holder, holder.wanted);
  }
}

function kept() {
  try {
    return localStorage.getItem("edgebench-theme");
  } catch {
    return null;
  }
}

function startJumps() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const target = link && document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    goTo(target);
  });
}

let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    for (const holder of all("#record .canvas")) if (views.has(holder)) holder.drawChart();
  }, 200);
});

startJumps();
startFilters();
startTables();
startLimits();
startCharts();
startRecord();
startTheme();
show(state);
