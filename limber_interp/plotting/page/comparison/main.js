/* What is looked at, and how it is changed. */

const CHUNK = 20; // images that are put onto the page at once
const by = judges();
const state = {
  entries: [...record.entries.keys()],
  metric: by.find((metric) => metric.unit === "share" && metric.task !== "caption") ?? by[0],
  shots: record.shots.length - 1,
  filter: "all",
  sort: "data",
  first: 0,
  second: Math.min(1, record.entries.length - 1),
  search: "",
};
let showing = []; // the images found
let painted = 0; // so many of them stand on the page

function update(change = {}) {
  Object.assign(state, change);
  const judged = state.metric && (JUDGED.includes(state.metric.unit) || state.metric === ANSWERS);
  for (const option of at("filter").options) option.disabled = ["one", "none"].includes(option.value) && !judged;
  if (at("filter").selectedOptions[0].disabled) state.filter = "all";
  at("filter").value = state.filter;
  for (const button of at("entries").children)
    button.setAttribute("aria-pressed", state.entries.includes(Number(button.dataset.entry)));
  const [first, second] = [state.first, state.second].map((entry) => record.entries[entry].name);
  at("filter").querySelector("[value=beats]").textContent = `${first} beats ${second}`;
  at("sort").querySelector("[value=first]").textContent = `${first} ahead of ${second}`;
  at("sort").querySelector("[value=second]").textContent = `${second} ahead of ${first}`;
  paintDifference();
  showing = found(state);
  at("status").textContent = `${showing.length} of ${record.images.length} images`;
  at("cards").replaceChildren();
  painted = 0;
  paintMore();
}

/** More of the images found: a page of hundreds would be slow. */
function paintMore() {
  const next = showing.slice(painted, painted + CHUNK);
  at("cards").append(...next.map(({ i, questions }) => cardOf(i, state, questions)));
  painted += next.length;
  at("more").hidden = painted >= showing.length;
  at("more").textContent = `${showing.length - painted} more`;
}

function paintDifference() {
  const { metric, first, second } = state;
  const name = metric === ANSWERS ? `vqa_${record.shots[state.shots]}` : metric?.name;
  const found = contrastOf(name, first, second);
  const measured = found && `${number(found.value)} [${number(found.low)}, ${number(found.high)}], p = ${pText(found.p)}`;
  at("difference").textContent =
    first === second ? "an entry with itself" : `by ${labelOf(metric)}: ${measured || "no difference measured"}`;
  at("difference").title = "mean of the paired differences, its 95 % interval, and p after Holm's correction over the pairs";
}

function labelOf(metric) {
  return metric === ANSWERS ? `answers after ${record.shots[state.shots]} shots` : metric?.label;
}

function pText(p) {
  return p === null ? "–" : p < 0.001 ? "less than 0.001" : p.toFixed(3);
}

function optionOf(value, text) {
  return Object.assign(element("option", "", text), { value });
}

/** The next image, or the one before; where there is none in focus, the first on the screen. */
function step(by) {
  const cards = [...at("cards").children];
  const current = cards.indexOf(document.activeElement.closest?.("article"));
  const visible = cards.findIndex((card) => card.getBoundingClientRect().bottom > 60);
  const next = current < 0 ? visible : current + by;
  if (next >= cards.length && painted < showing.length) paintMore();
  at("cards").children[next]?.focus();
}

function onKey(event) {
  if ((event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph")) return;
  const typing = event.target === at("search");
  if (typing && event.key === "Escape") {
    at("search").value = "";
    update({ search: "" });
  } else if (event.target.closest("input, select")) return;
  else if (event.key === "/") at("search").focus();
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
}

function buildControls() {
  record.entries.forEach((entry, e) => {
    const button = element("button");
    Object.assign(button, { type: "button", title: entry.description });
    button.dataset.entry = e;
    button.append(swatch(entry), entry.name);
    at("entries").append(button);
    for (const id of ["first", "second"]) at(id).append(optionOf(e, entry.name));
  });
  for (const metric of by) at("metric").append(optionOf(metric.name, metric.label));
  record.shots.forEach((n, i) => at("shots").append(optionOf(i, `${n} shot${n === 1 ? "" : "s"}`)));
  at("choose-shots").hidden = record.shots.length < 2;
  at("choose-all").hidden = record.metrics.every(({ headline }) => headline);
  at("marked").hidden = !record.images.some(({ nouns }) => nouns?.length);
  at("metric").value = state.metric?.name;
  for (const id of ["shots", "first", "second"]) at(id).value = state[id];
}

at("entries").addEventListener("click", (event) => {
  const button = event.target.closest("[data-entry]");
  if (!button) return;
  const entry = Number(button.dataset.entry);
  const entries = [...record.entries.keys()].filter((e) => state.entries.includes(e) !== (e === entry));
  if (entries.length) update({ entries });
});
for (const id of ["shots", "first", "second"])
  at(id).addEventListener("change", () => update({ [id]: Number(at(id).value) }));
for (const id of ["filter", "sort"]) at(id).addEventListener("change", () => update({ [id]: at(id).value }));
at("metric").addEventListener("change", () => update({ metric: by[at("metric").selectedIndex] }));
at("search").addEventListener("input", () => update({ search: at("search").value }));
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("all").addEventListener("change", () => paintScores(at("all").checked));
at("more").addEventListener("click", paintMore);
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && paintMore(), {
  rootMargin: "600px",
}).observe(at("more"));
document.addEventListener("keydown", onKey);

at("about").textContent =
  `${record.data} · ${record.images.length} images${record.questions.length ? `, ${record.questions.length} questions` : ""}` +
  ` · prompt: the image, then “${record.prompt}” · seed ${record.seed}`;
document.title = `Encoders compared: ${record.data}`;
paintScores(false);
listMetrics();
buildControls();
buildManifest("What produced these numbers", record.manifest);
update();
