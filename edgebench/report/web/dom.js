/* Elements; all text goes in as text. */

const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Make an element: attributes, and children that are elements or text; what is null or false is left out. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "click") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Make a list of terms and what they say. */
function terms(name, pairs) {
  return make("dl", { class: name }, pairs.map(([term, said]) => make("div", {}, make("dt", {}, term), make("dd", {}, said))));
}

function badge(word) {
  return make("span", { class: `badge ${word.toLowerCase()}` }, word);
}

function folded(title, ...children) {
  return make("details", {}, make("summary", {}, title), ...children);
}

/** Make a table; headings with a leading `#` are of numbers, and the first column heads its rows. */
function grid(caption, headings, lines) {
  const numbers = headings.map((heading) => heading.startsWith("#"));
  const cell = (text, place) =>
    place ? make("td", { class: !numbers[place] && "text" }, text) : make("th", { scope: "row" }, text);
  return make(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    make(
      "table",
      {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, headings.map((heading, place) =>
        make("th", { scope: "col", class: numbers[place] && "number" }, heading.replace("#", ""))))),
      make("tbody", {}, lines.map((line) => make("tr", {}, line.map((text, place) => cell(text ?? "", place))))),
    ),
  );
}

/** Read what was packed beside the page: gzip in base64. */
function unzip(held) {
  const bytes = Uint8Array.from(atob(held.textContent), (each) => each.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function unpack(id) {
  const held = document.getElementById(id);
  return held ? JSON.parse(await unzip(held)) : null;
}

const unpacked = new Map();

/** Read it once. */
function unpackOnce(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpack(id));
  return unpacked.get(id);
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Bring a part of the page into view, and the focus with it. */
function goTo(target) {
  target.closest("details")?.setAttribute("open", "");
  target.scrollIntoView({ behavior: still.matches ? "auto" : "smooth", block: "start" });
  target.focus({ preventScroll: true });
}
