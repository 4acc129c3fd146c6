/* What is looked at, and how it is changed. */

const state = { image: 0, view: 0, layer: record.layers.length - 1, position: 0, locked: false, token: null };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function layerName(layer) {
  return `Layer ${record.layers[layer]}${record.layers[layer] === 0 ? ", the input" : ""}`;
}

function update(change = {}) {
  Object.assign(state, change);
  const image = imageAt(state.image);
  paintMap(image, state);
  paintPosition(image);
  paintCurves(image, state, (layer) => update({ layer }));
  at("layer").value = state.layer;
  at("layer").setAttribute("aria-valuetext", layerName(state.layer));
  at("layer-name").textContent = layerName(state.layer);
  at("clear").hidden = at("token").value === "";
  for (const button of at("targets").children)
    button.setAttribute("aria-pressed", Number(button.dataset.token) === state.token);
}

/** A pointer passes over many positions: only what changes with them is painted again. */
function show(position) {
  if (state.locked || position === state.position) return;
  state.position = position;
  paintPosition(imageAt(state.image));
}

function paintPosition(image) {
  markPosition(state);
  paintTable(image, state);
}

function choose(token) {
  at("token").value = token === null ? "" : record.tokens[token];
  at("answer").textContent = "";
  update({ token });
}

function search() {
  const text = at("token").value;
  const token = text === "" ? -1 : findToken(text);
  const spaced = tokenOf.get(BLANK + record.tokens[token]);
  let answer = "";
  if (text && token < 0)
    answer = `“${text}” is nowhere among the ${record.k}. As a target it would have been followed everywhere.`;
  if (spaced !== undefined)
    answer = `${record.tokens[token]} without a space; ${record.tokens[spaced]} is another token.`;
  at("answer").textContent = answer;
  update({ token: token < 0 ? null : token });
  offer(text);
}

/** The targets, then what occurs at this image, the most probable first. */
function offer(text) {
  const image = imageAt(state.image);
  const best = new Float32Array(record.tokens.length).fill(-Infinity);
  const { tokens, logprobs } = image.views[0].reading;
  tokens.forEach((token, i) => {
    best[token] = Math.max(best[token], logprobs[i]);
  });
  for (const target of image.targets) best[target.token] = 1;
  const part = text.replaceAll(" ", BLANK).toLowerCase();
  const matching = [...best.keys()].filter((token) => record.tokens[token].toLowerCase().includes(part));
  matching.sort((a, b) => best[b] - best[a]);
  at("offers").replaceChildren(
    ...matching.slice(0, 40).map((token) => {
      const option = document.createElement("option");
      option.value = record.tokens[token];
      return option;
    }),
  );
}

function openImage(i) {
  const image = imageAt(i);
  document.title = `Logit lens: ${image.name.split("/").at(-1)}`;
  const after = record.prompt === null ? "" : ` · prompt: the image, then “${record.prompt}”`;
  at("about").textContent = `${record.images.length > 1 ? "" : `${image.name} · `}${record.config}${after}`;
  buildMap(image);
  buildViews(image);
  at("targets").replaceChildren(
    ...image.targets.map((target) => {
      const button = element("button", "target", record.tokens[target.token]);
      button.type = "button";
      button.dataset.token = target.token;
      button.title = `target ${target.word}, followed everywhere`;
      return button;
    }),
  );
  update({ image: i, view: 0, position: strongest(image), locked: false });
  offer("");
}

/** To begin with: the patch of which the last layer is surest. */
function strongest(image) {
  const { logprobs } = image.views[0].reading;
  const start = (record.layers.length - 1) * image.positions.length;
  const placed = [...image.places.keys()].filter((position) => image.places[position]);
  const among = placed.length ? placed : [...image.places.keys()];
  return among.reduce((best, position) =>
    logprobs[(start + position) * record.k] > logprobs[(start + best) * record.k] ? position : best,
  );
}

function buildViews(image) {
  const views = at("views");
  views.replaceChildren(element("legend", "", "What is shown"));
  image.views.forEach((view, v) => {
    const label = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name: "view", value: v, checked: v === 0 });
    const text = element("span");
    text.append(element("b", "", view.name));
    if (v > 0) text.append(element("span", "quiet", controlText(view)));
    label.append(input, swatch(v), text);
    views.append(label);
  });
  if (!image.controls.length)
    views.append(element("p", "warning", "No control was run: these numbers alone say nothing."));
}

function controlText({ description, draws, seed, sources }) {
  const shown = sources.length ? `, the first is ${sources[0]}` : draws > 1 ? ", the first is shown" : "";
  return `control: ${description}; ${draws} draw${draws > 1 ? "s" : ""}${shown}; seed ${seed}`;
}

function onKey(event) {
  const typing = event.target === at("token");
  // AltGr, by which many keyboards write brackets, looks like Ctrl + Alt
  if ((event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph")) return;
  if (event.key === "Escape") {
    if (typing) {
      choose(null);
      positionButtons[state.position].focus();
    } else update({ locked: false });
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    at("token").focus();
    at("token").select();
  } else if (event.key === "[" || event.key === "]") {
    const layer = state.layer + (event.key === "]" ? 1 : -1);
    update({ layer: Math.min(record.layers.length - 1, Math.max(0, layer)) });
  } else if (event.key in ARROWS && !event.target.closest("input, select, #scroll")) {
    const focused = event.target.closest(".position");
    const position = focused ? Number(focused.dataset.position) : state.position;
    positionButtons[focused ? neighbour(position, ARROWS[event.key]) : position].focus();
  } else return;
  event.preventDefault();
}

for (const kind of ["pointerover", "focusin"]) {
  at("left").addEventListener(kind, (event) => {
    const button = event.target.closest(".position");
    if (button) show(Number(button.dataset.position));
  });
}
at("left").addEventListener("click", (event) => {
  const button = event.target.closest(".position");
  if (!button) return;
  const position = Number(button.dataset.position);
  update({ position, locked: !(state.locked && position === state.position) });
});
at("unlock").addEventListener("click", () => update({ locked: false }));
at("layers").addEventListener("click", (event) => {
  const word = event.target.closest("[data-token]");
  const row = event.target.closest("[data-layer]");
  if (word) choose(Number(word.dataset.token));
  else if (row) update({ layer: Number(row.dataset.layer) });
});
at("targets").addEventListener("click", (event) => {
  const button = event.target.closest("[data-token]");
  if (button) choose(Number(button.dataset.token) === state.token ? null : Number(button.dataset.token));
});
at("search").addEventListener("submit", (event) => event.preventDefault());
at("token").addEventListener("input", search);
at("clear").addEventListener("click", () => choose(null));
at("layer").addEventListener("input", () => update({ layer: Number(at("layer").value) }));
at("views").addEventListener("change", (event) => update({ view: Number(event.target.value) }));
at("image").addEventListener("change", () => openImage(Number(at("image").value)));
document.addEventListener("keydown", onKey);
window.addEventListener("resize", () => update());

at("layer").max = record.layers.length - 1;
record.images.forEach((image, i) => {
  const option = element("option", "", image.name);
  option.value = i;
  at("image").append(option);
});
at("choose").hidden = record.images.length < 2;
buildManifest(`What produced these numbers: ${record.config}, ${record.manifest.computed.dtype}`, record.manifest);
openImage(0);
