/* The positions: buttons on their patches, and below the image those that have none. */

const positionButtons = [];

function buildMap(image) {
  const patches = document.getElementById("patches");
  const elsewhere = document.getElementById("elsewhere");
  const picture = document.getElementById("picture");
  const seen = document.getElementById("seen");
  positionButtons.length = 0;
  patches.replaceChildren();
  elsewhere.replaceChildren();
  picture.hidden = !image.size;
  picture.classList.toggle("small", !image.grid);
  if (image.size) picture.style.aspectRatio = `${image.size[1]} / ${image.size[0]}`;
  seen.hidden = !image.seen;
  if (image.seen) seen.src = image.seen;
  if (image.grid) {
    const [rows, columns] = image.grid;
    patches.style.gridTemplate = `repeat(${rows}, minmax(0, 1fr)) / repeat(${columns}, minmax(0, 1fr))`;
    patches.style.setProperty("--columns", columns);
    patches.setAttribute("aria-label", `${rows} × ${columns} patches`);
  }

  let list = null;
  image.positions.forEach((_, position) => {
    const place = image.places[position];
    const button = element("button", "position");
    button.type = "button";
    button.dataset.position = position;
    button.append(element("span", "place", image.inputs[position] || (place ? "" : String(image.positions[position]))));
    button.append(element("span", "word"), element("span", "value"));
    positionButtons.push(button);
    if (place) {
      button.style.gridArea = `${place[0] + 1} / ${place[1] + 1}`;
      patches.append(button);
      return;
    }
    const kind = image.inputs[position] ? "Text" : "Positions of the image, which are no places in it";
    if (list?.getAttribute("aria-label") !== kind) {
      list = element("div", "list");
      list.setAttribute("role", "group");
      list.setAttribute("aria-label", kind);
      elsewhere.append(element("p", "quiet", kind), list);
    }
    list.append(button);
  });
}

function nameOf(image, position) {
  const place = image.places[position];
  if (place) return `Patch ${place[0]}, ${place[1]}`;
  return image.inputs[position] ? `Text ${image.inputs[position]}` : `Position ${image.positions[position]}`;
}

/** Each position's most probable token at the layer, or the probability of the token that was asked for. */
function paintMap(image, state) {
  const n = image.positions.length;
  const { k } = record;
  const { reading } = image.views[state.view];
  const asked = state.token !== null;
  const { traces, scale } = asked ? tracesOf(image, state.token) : image;

  positionButtons.forEach((button, position) => {
    const i = state.layer * n + position;
    const logprob = asked ? traces[state.view].logprobs[i] : reading.logprobs[i * k];
    const token = asked ? state.token : reading.tokens[i * k];
    const known = !Number.isNaN(logprob);
    const share = known ? scale.at(logprob) : 0;
    const { colour, ink } = colourAt(share);
    const said = known ? probability(logprob) : `not among the ${k}`;
    button.style.setProperty("--share", share);
    button.style.setProperty("--colour", known ? colour : "transparent");
    button.style.setProperty("--ink", ink);
    button.classList.toggle("heat", asked && known);
    button.classList.toggle("blank", !known);
    button.setAttribute("aria-label", `${nameOf(image, position)}: ${record.tokens[token]}, ${said}`);
    button.children[1].textContent = asked ? "" : withoutSpace(record.tokens[token]);
    button.children[2].textContent = known ? probability(logprob, 2) : "";
  });

  document.getElementById("picture").classList.toggle("empty", state.view > 0);
  document.getElementById("patches").classList.toggle("asked", asked);
  paintLegend(scale, asked, state);
}

/** Which position the table shows. */
function markPosition(state) {
  positionButtons.forEach((button, position) => {
    const shown = position === state.position;
    button.classList.toggle("shown", shown);
    button.tabIndex = shown ? 0 : -1; // the map is one stop of the tab key
    button.setAttribute("aria-pressed", state.locked && shown);
  });
}

/** On a patch there is no room for the space that most tokens begin with. */
function withoutSpace(text) {
  return text.length > 1 && text.startsWith(BLANK) ? text.slice(1) : text;
}

function paintLegend(scale, asked, state) {
  document.getElementById("legend-title").textContent = asked
    ? `probability of ${record.tokens[state.token]}`
    : "probability of the most probable token";
  document.getElementById("ramp").style.background = `linear-gradient(to right, ${record.colours.join(", ")})`;
  const ticks = [];
  for (let decade = scale.bottom; decade <= scale.top; decade++) {
    const tick = element("span", "", decadeText(decade));
    tick.style.left = `${(100 * (decade - scale.bottom)) / (scale.top - scale.bottom)}%`;
    ticks.push(tick);
  }
  document.getElementById("ticks").replaceChildren(...ticks);
  const blank = document.getElementById("blank");
  blank.textContent = `not among the ${record.k}`;
  blank.hidden = !asked;
}

/** The nearest position in a direction, as it lies on the screen; itself where there is none. */
function neighbour(position, [dx, dy]) {
  const centre = (button) => {
    const box = button.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const [x, y] = centre(positionButtons[position]);
  let [nearest, distance] = [position, Infinity];
  positionButtons.forEach((button, other) => {
    const [right, down] = [centre(button)[0] - x, centre(button)[1] - y];
    const ahead = right * dx + down * dy;
    const aside = Math.abs(right * dy) + Math.abs(down * dx);
    if (ahead > 1 && (dx === 0 || aside < ahead) && ahead + 2 * aside < distance) {
      [nearest, distance] = [other, ahead + 2 * aside];
    }
  });
  return nearest;
}
