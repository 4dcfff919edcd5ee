"use strict";
const at = (id) => document.getElementById(id);
let key = "";
let picture = null;
let asked = 0;

const headers = () => (key ? { "X-API-Key": key } : {});

async function ask(path, options = {}) {
  const reply = await fetch(path, { ...options, headers: headers() });
  if (reply.status === 401) at("key-form").hidden = false;
  const content = await reply.json().catch(() => ({}));
  if (reply.ok) return content;
  const detail = typeof content.detail === "string" ? content.detail : (content.detail || []).map((each) => each.msg).join("; ");
  throw new Error(`${reply.status}: ${detail || reply.statusText}`);
}

function choices(select, names) {
  for (const name of names) {
    const option = document.createElement("option");
    option.value = option.textContent = name;
    select.append(option);
  }
}

async function begin() {
  at("error").textContent = "";
  try {
    const told = await ask("model/info");
    const size = told.input.preprocessing;
    at("served").textContent =
      `${told.name}: ${told.classes.length} classes, ${size.height} × ${size.width} pixels, on ${told.device} by ${told.runtime_version || told.runtime}`;
    at("key-form").hidden = true;
    at("method").replaceChildren();
    choices(at("method"), told.explained_by);
    at("method").value = "occlusion";
    while (at("class").options.length > 1) at("class").lastChild.remove();
    choices(at("class"), told.classes);
  } catch (error) {
    at("served").textContent = "";
    at("error").textContent = `Nothing is known of the model (${error.message}).`;
  }
}

function form(fields = {}) {
  const made = new FormData();
  made.append("file", picture);
  for (const [name, value] of Object.entries(fields)) made.append(name, value);
  return { method: "POST", body: made };
}

function show(answer) {
  const decided = [].concat(answer.prediction);
  at("said").textContent = `${decided.join(", ") || "none of the labels"}, held ${percent(answer.confidence)} likely`;
  const order = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  at("likely").replaceChildren(...order.map(([name, value]) => row(name, value, decided.includes(name))));
  at("answer").hidden = false;
}

function row(name, value, decided) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  const number = document.createElement("td");
  const bar = document.createElement("td");
  const meter = document.createElement("meter");
  head.scope = "row";
  head.textContent = name;
  number.textContent = percent(value);
  number.className = "number";
  meter.value = value;
  meter.setAttribute("aria-label", `probability of ${name}`);
  bar.className = "bar";
  bar.append(meter);
  line.className = decided ? "decided" : "";
  line.append(head, number, bar);
  return line;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

async function run() {
  const mine = ++asked;
  const current = () => mine === asked;
  at("error").textContent = "";
  at("answer").hidden = at("map").hidden = true;
  at("again").disabled = true;
  at("state").textContent = "The model is asked …";
  try {
    const answer = await ask("predict", form());
    if (!current()) return;
    show(answer);
    at("seen").src = URL.createObjectURL(picture);
    at("seen-caption").textContent = picture.name || "the picture";
    at("state").textContent = `Inferred in ${answer.inference_time_ms} ms.`;
    if (at("heat").checked) await explain(current);
  } catch (error) {
    if (!current()) return;
    at("state").textContent = "";
    at("error").textContent = error.message;
  }
  if (current()) at("again").disabled = false;
}

async function explain(current) {
  const fields = { method: at("method").value || "occlusion" };
  if (at("class").value) fields.explained_class = at("class").value;
  at("state").textContent += " A heat map is made …";
  const found = await ask("explain", form(fields));
  if (!current()) return;
  at("heat-map").src = `data:image/png;base64,${found.heat_map_png}`;
  at("heat-map").alt = `Heat map for ${found.explained_class}`;
  at("seen").src = `data:image/png;base64,${found.picture_png}`;
  at("seen-caption").textContent = "as the network sees it";
  at("map-caption").textContent = `red speaks for ${found.explained_class}, blue against it; by ${found.method}, ${found.inferences} inferences`;
  at("map").hidden = false;
  at("state").textContent = `Explained in ${found.seconds.toFixed(2)} s.`;
}

function take(files) {
  if (!files.length) return;
  picture = files[0];
  run();
}

at("file").addEventListener("change", (event) => take(event.target.files));
at("again").addEventListener("click", () => picture && run());
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value;
  begin();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
begin();
