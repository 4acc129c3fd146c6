/* One position at every layer. */

function paintTable(image, state) {
  const { k } = record;
  const { reading, name } = image.views[state.view];
  const asked = state.token === null ? null : tracesOf(image, state.token).traces[state.view];
  const place = image.places[state.position];
  document.getElementById("where").textContent = nameOf(image, state.position) + (state.view ? `, ${name}` : "");
  document.getElementById("unlock").hidden = !state.locked;

  const head = element("tr");
  const tokens = Array.from({ length: k }, (_, j) => String(j + 1));
  const titles = ["layer", "entropy", "KL", ...(asked ? [record.tokens[state.token]] : []), ...tokens];
  head.append(...titles.map((title) => element("th", "", title)));
  const rows = record.layers.map((number, layer) => {
    const i = layer * image.positions.length + state.position;
    const row = element("tr");
    row.dataset.layer = layer;
    if (layer === state.layer) row.setAttribute("aria-current", "true");
    const header = element("th", "", String(number));
    header.scope = "row";
    row.append(header);
    row.append(...[reading.entropy, reading.kl].map((values) => element("td", "number", (values[i] / 100).toFixed(2))));
    if (asked) {
      const known = asked.ranks[i] > 0;
      row.append(element("td", "number", known ? `${probability(asked.logprobs[i], 2)}, rank ${asked.ranks[i]}` : "–"));
    }
    for (let j = i * k; j < (i + 1) * k; j++) {
      const cell = tokenCell(reading.tokens[j], reading.logprobs[j], image.scale);
      cell.classList.toggle("agrees", j === i * k && reading.agrees[i] === 1);
      cell.classList.toggle("asked", reading.tokens[j] === state.token);
      row.append(cell);
    }
    return row;
  });
  const [thead, tbody] = [element("thead"), element("tbody")];
  thead.append(head);
  tbody.append(...rows);
  document.getElementById("layers").replaceChildren(thead, tbody);

  document.getElementById("reading-aid").textContent =
    `${place ? "Row and column, counted from 0; position" : "Position"} ${image.positions[state.position]} of the prompt. ` +
    "Each token with its probability; bold where it is the last layer's, too. Layer 0 is the input of the first block. " +
    `Entropy and KL(last layer ‖ this layer) in nats.${asked ? ` –: not among the ${k}.` : ""}`;
}

function tokenCell(token, logprob, scale) {
  const cell = element("td", "token");
  const word = element("button", "word", record.tokens[token]);
  word.type = "button";
  word.tabIndex = -1; // from the keyboard the search does the same
  word.dataset.token = token;
  word.title = `token ${record.token_ids[token]}: map it`;
  cell.style.setProperty("--share", scale.at(logprob));
  cell.style.setProperty("--colour", colourAt(scale.at(logprob)).colour);
  cell.append(word, element("span", "value", probability(logprob, 2)));
  return cell;
}
