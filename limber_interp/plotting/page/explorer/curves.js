/* One token over the layers, beside the same of the controls. */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const MARGIN = { left: 58, right: 12, top: 10, bottom: 24 };

function shape(name, attributes, parent = null, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent?.append(made);
  return made;
}

/** A line's look, the same wherever it is drawn: 0 is the image, then the controls. */
function lineClass(view) {
  return view === 0 ? "line image" : `line control-${(view - 1) % 6}`;
}

function swatch(view) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("viewBox", "0 0 34 10");
  svg.setAttribute("aria-hidden", "true");
  shape("line", { class: lineClass(view), x1: 1, y1: 5, x2: 33, y2: 5 }, svg);
  return svg;
}

/** Per view, and over layers, what is drawn and said of a token: the highest probability over the positions and, of a
    target, the best rank. Of a target the controls have `low` and `high` too, the 5 % and 95 % quantiles over draws. */
function linesOf(image, token) {
  const layers = [...record.layers.keys()];
  const target = image.targets.findIndex((one) => one.token === token);
  const ofDraws = (quantiles) => {
    const at = (q) => layers.map((layer) => quantiles[(q * layers.length + layer) * image.targets.length + target]);
    return { low: at(0), values: at(1), high: at(2) };
  };
  const logprobs = image.views.map((view, v) => {
    if (v > 0 && target >= 0) return ofDraws(view.logprobs);
    const found = layers.map((layer) => highest(image, v, tracesOf(image, token).traces[v], layer));
    return { values: found.map((one) => one.logprob), exact: found.map((one) => one.exact) };
  });
  if (target < 0) return { logprobs };
  const n = image.positions.length;
  const own = image.targets[target].ranks;
  const best = layers.map((layer) => Math.min(...own.subarray(layer * n, (layer + 1) * n)));
  return { logprobs, ranks: image.views.map((view, v) => (v ? ofDraws(view.ranks) : { values: best })) };
}

/** Lines over layers; `heightOf` gives a value's decimal logarithm. A gap is a layer at which nothing is known. */
function drawChart(figure, lines, heightOf, labelOf, current, pick) {
  const width = Math.max(260, figure.clientWidth);
  const name = `${figure.textContent}; the values are in the table below`;
  const svg = shape("svg", { width, height: HEIGHT, role: "img", "aria-label": name }, figure);
  const heights = lines.flatMap((line) => [line.values, line.low ?? [], line.high ?? []].flat().map(heightOf));
  const known = heights.filter(Number.isFinite);
  const top = known.length ? Math.ceil(Math.max(...known)) : 0;
  const bottom = Math.min(top - 1, Math.floor(Math.min(top, ...known)));
  const [first, last] = [record.layers[0], record.layers.at(-1)];
  const x = (layer) => {
    const share = first === last ? 0.5 : (record.layers[layer] - first) / (last - first);
    return MARGIN.left + share * (width - MARGIN.left - MARGIN.right);
  };
  const y = (value) => yOf(heightOf(value));
  const yOf = (height) => MARGIN.top + ((top - height) / (top - bottom)) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  const step = Math.ceil((top - bottom) / 6);
  for (let decade = top; decade >= bottom; decade -= step) {
    shape("line", { class: "rule", x1: MARGIN.left, x2: width - MARGIN.right, y1: yOf(decade), y2: yOf(decade) }, svg);
    shape("text", { x: MARGIN.left - 6, y: yOf(decade) + 4, "text-anchor": "end" }, svg, labelOf(decade));
  }
  const every = Math.ceil((record.layers.length * 26) / (width - MARGIN.left));
  record.layers.forEach((number, layer) => {
    if (layer % every === 0) shape("text", { x: x(layer), y: HEIGHT - 6, "text-anchor": "middle" }, svg, number);
  });
  shape("line", { class: "cursor", x1: x(current), x2: x(current), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }, svg);

  const groups = lines.map((_, view) => shape("g", { class: lineClass(view), "data-view": view }));
  svg.append(...groups.toReversed()); // the image above its controls
  lines.forEach(({ values, exact, low, high }, view) => {
    const group = groups[view];
    if (low) {
      const around = [
        ...high.map((value, layer) => [value, layer]),
        ...low.map((value, layer) => [value, layer]).reverse(),
      ];
      const points = around.map(([value, layer]) => `${x(layer)},${y(value)}`).join(" ");
      shape("polygon", { class: "band", points }, group);
    }
    const steps = values.map((value, layer) => {
      if (Number.isNaN(value)) return "";
      return `${layer && !Number.isNaN(values[layer - 1]) ? "L" : "M"}${x(layer)},${y(value)}`;
    });
    shape("path", { d: steps.join("") }, group);
    values.forEach((value, layer) => {
      if (Number.isNaN(value)) return;
      const hollow = exact && !exact[layer];
      const dot = { class: hollow ? "dot hollow" : "dot", cx: x(layer), cy: y(value), r: view ? 2.2 : 3.2 };
      shape("circle", dot, group);
    });
  });
  svg.addEventListener("click", (event) => {
    const from = event.clientX - svg.getBoundingClientRect().left;
    const away = record.layers.map((_, layer) => Math.abs(x(layer) - from));
    pick(away.indexOf(Math.min(...away)));
  });
}

function paintCurves(image, state, pick) {
  const parent = document.getElementById("curves");
  parent.hidden = state.token === null;
  if (state.token === null) return;
  const { logprobs, ranks } = linesOf(image, state.token);
  const target = image.targets.find((one) => one.token === state.token);
  const charts = element("div", "charts");
  const figures = ["highest probability over the positions", "best rank over the positions"].map((title) => {
    const figure = element("figure");
    figure.append(element("figcaption", "", title));
    return figure;
  });
  charts.append(...figures.slice(0, ranks ? 2 : 1));
  parent.replaceChildren(element("h2", "", `${record.tokens[state.token]} over the layers`), charts);
  // Only now, with all in its place, is it known how wide they are
  drawChart(figures[0], logprobs, (value) => value / Math.LN10, decadeText, state.layer, pick);
  // Upside down: the most probable token of all is at the top
  if (ranks)
    drawChart(
      figures[1],
      ranks,
      (rank) => -Math.log10(rank),
      (decade) => String(10 ** -decade),
      state.layer,
      pick,
    );

  parent.append(valuesTable(image, logprobs, ranks, state.layer, charts));
  const said = [];
  for (const { values, against, least } of target?.p ?? []) {
    const p = Number(values[state.layer].toPrecision(2));
    said.push(`p = ${p} against ${against}, at layer ${record.layers[state.layer]}; so many allow no p below ${least}.`);
  }
  if (target) {
    said.push("A control's line is the median over its draws, its band their 5 % to 95 %.");
    if (said.length > 1)
      said.push("One of many layers is good by chance: choose it beforehand, or multiply p by their number.");
  } else {
    said.push(
      `Known only where it is among the ${record.k}: a gap is no zero, a hollow dot no more than a lower bound.`,
    );
    if (image.controls.length) said.push("Of each control, the first draw.");
  }
  if (!image.controls.length)
    parent.append(element("p", "warning", "No control was run: this curve alone says nothing."));
  parent.append(element("p", "quiet", said.join(" ")));
}

function valuesTable(image, logprobs, ranks, layer, charts) {
  const table = element("table", "values");
  const head = table.createTHead().insertRow();
  const titles = [`layer ${record.layers[layer]}`, "highest probability", "best rank"];
  head.append(...titles.slice(0, ranks ? 3 : 2).map((title) => element("th", "", title)));
  const body = table.createTBody();
  image.views.forEach((view, v) => {
    const header = element("th", "", view.name);
    header.scope = "row";
    header.prepend(swatch(v));
    const row = body.insertRow();
    row.append(header, element("td", "", valueText(logprobs[v], layer, probability)));
    if (ranks)
      row.append(
        element(
          "td",
          "",
          valueText(ranks[v], layer, (rank) => String(Math.round(rank))),
        ),
      );
    // Where lines and bands lie upon each other, pointing at a row brings out its own
    const light = (on) =>
      charts
        .querySelectorAll("g")
        .forEach((group) => group.classList.toggle("dim", on && group.dataset.view !== String(v)));
    row.addEventListener("pointerenter", () => light(true));
    row.addEventListener("pointerleave", () => light(false));
  });
  return table;
}

function valueText({ values, exact, low, high }, layer, textOf) {
  if (Number.isNaN(values[layer])) return `not among the ${record.k}`;
  const text = textOf(values[layer]);
  if (low && low[layer] !== high[layer]) return `${text} (${textOf(low[layer])} to ${textOf(high[layer])})`;
  return exact && !exact[layer] ? `at least ${text}` : text;
}
