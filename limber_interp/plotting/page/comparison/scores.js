/* The table of scores. */

function swatch({ colour, kind }) {
  const made = element("span", `swatch ${kind}`);
  made.style.setProperty("--colour", colour);
  made.setAttribute("aria-hidden", "true");
  return made;
}

function paintScores(all) {
  const shown = record.metrics.filter((metric) => all || metric.headline);
  const head = element("tr");
  const columns = shown.map((metric) => {
    const cell = element("th", "", `${metric.label}${metric.direction < 0 ? " ↓" : ""}`);
    cell.scope = "col";
    cell.title = metric.description;
    return cell;
  });
  head.append(element("td"), ...columns);
  const best = shown.map(bestOf);
  const rows = record.entries.map((entry, e) => {
    const row = element("tr");
    const name = element("th", "entry");
    name.scope = "row";
    name.title = entry.description;
    name.append(swatch(entry), entry.name);
    row.append(name, ...shown.map((metric, m) => scoreCell(metric, metric.scores[e], e === best[m])));
    return row;
  });
  const [thead, tbody] = [element("thead"), element("tbody")];
  thead.append(head);
  tbody.append(...rows);
  at("scores").replaceChildren(thead, tbody);
}

function bestOf({ scores, direction }) {
  const rated = scores.map((score) => (direction && score ? direction * (score[0] ?? -Infinity) : -Infinity));
  const highest = Math.max(...rated);
  return highest === -Infinity ? -1 : rated.indexOf(highest);
}

/** The number, its interval in words, and both as a bar; the chance level is the mark on it. */
function scoreCell(metric, score, isBest) {
  const cell = element("td");
  if (!score || score[0] === null) return cell;
  const [value, low, high, n, chance] = score;
  const known = metric.scores.flatMap((one) => (one ? [one[0], one[1], one[2], one[4]] : []));
  const top = JUDGED.includes(metric.unit) ? 1 : Math.max(...known.filter((one) => one !== null), 1e-9);
  const bottom = Math.min(0, ...known.filter((one) => one !== null));
  const place = (number) => `${(100 * (number - bottom)) / (top - bottom)}%`;
  const bar = element("span", "bar");
  bar.setAttribute("aria-hidden", "true");
  const part = (name, left, right = left) => {
    const made = element("i", name);
    made.style.left = place(left);
    made.style.right = `calc(100% - ${place(right)})`;
    bar.append(made);
  };
  if (low !== null) part("interval", low, high);
  part("estimate", value);
  if (chance !== null) part("chance", chance);
  cell.append(element(isBest ? "b" : "span", "value", number(value)));
  if (low !== null) cell.append(element("span", "quiet", ` [${number(low)}, ${number(high)}]`));
  if (chance !== null) cell.append(element("span", "quiet", ` ◇ ${number(chance)}`));
  cell.append(bar);
  cell.title = `${metric.label}: ${n} images`;
  return cell;
}

function listMetrics() {
  for (const { label, unit, description, chance } of record.metrics)
    at("metrics").append(
      element("dt", "", label),
      element("dd", "", `${description} (${unit})${chance ? `; ◇ ${chance}` : ""}`),
    );
}
