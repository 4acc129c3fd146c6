/* What can be asked of the record. Arrays are (layers, positions) or (layers, positions, k) in row-major order;
   log-probabilities are natural. A token is an index into record.tokens. */

const BLANK = "␣"; // how a token's spaces are shown

record.token_ids = unpack(record.token_ids);
const tokenOf = new Map(record.tokens.map((text, token) => [text, token]));

/** The i-th image, unpacked when it is first asked for. Its views are what can be laid over the patches. */
function imageAt(i) {
  const image = record.images[i];
  if (!image.views) {
    image.views = [{ name: "this image", reading: image.reading }, ...image.controls];
    for (const view of image.views) {
      for (const [name, values] of Object.entries(view.reading)) view.reading[name] = unpack(values);
    }
    for (const part of [...image.controls, ...image.targets]) {
      part.ranks = unpack(part.ranks);
      part.logprobs = unpack(part.logprobs);
    }
    for (const p of image.targets.flatMap((target) => target.p)) p.values = unpack(p.values);
    image.scale = scaleOf(image.views.map((view) => view.reading.logprobs.filter((_, i) => i % record.k === 0)));
  }
  return image;
}

/** What is known of one token in each view: NaN and rank 0 where it is not among the k and was not followed. */
function tracesOf(image, token) {
  if (image.traced?.token !== token) {
    const traces = image.views.map((_, view) => trace(image, view, token));
    image.traced = { token, traces, scale: scaleOf(traces.map((one) => one.logprobs)) };
  }
  return image.traced;
}

function trace(image, view, token) {
  const target = view === 0 && image.targets.find((one) => one.token === token);
  if (target) return target;
  const { tokens, logprobs } = image.views[view].reading;
  const n = tokens.length / record.k;
  const found = { logprobs: new Float32Array(n).fill(NaN), ranks: new Uint32Array(n) };
  tokens.forEach((other, i) => {
    if (other !== token) return;
    found.logprobs[Math.floor(i / record.k)] = logprobs[i];
    found.ranks[Math.floor(i / record.k)] = (i % record.k) + 1;
  });
  return found;
}

/** The highest log-probability over positions at one layer. It is no more than a lower bound where a position without
    the token keeps k tokens that are all more probable than that: there the token could be more probable, too. */
function highest(image, view, traced, layer) {
  const n = image.positions.length;
  const { logprobs } = image.views[view].reading;
  let best = -Infinity;
  let unknown = -Infinity;
  for (let i = layer * n; i < (layer + 1) * n; i++) {
    if (Number.isNaN(traced.logprobs[i])) unknown = Math.max(unknown, logprobs[(i + 1) * record.k - 1]);
    else best = Math.max(best, traced.logprobs[i]);
  }
  return { logprob: best === -Infinity ? NaN : best, exact: best >= unknown };
}

/** The token that a reader means by a text: as it is shown, with a leading space, by its id, in another case. */
function findToken(text) {
  const shown = text.replaceAll(" ", BLANK);
  for (const name of [shown, text, BLANK + shown]) if (tokenOf.has(name)) return tokenOf.get(name);
  const id = /^#(\d+)$/.exec(text);
  if (id) return record.token_ids.indexOf(Number(id[1]));
  const small = shown.toLowerCase();
  return record.tokens.findIndex((name) => [small, BLANK + small].includes(name.toLowerCase()));
}

function probability(logprob, digits = 3) {
  const p = Math.exp(logprob);
  return p >= 1e-3 || p === 0 ? p.toPrecision(digits) : p.toExponential(digits - 2);
}

/** What stands at a decade of an axis of probabilities. */
function decadeText(decade) {
  return decade < -3 ? `1e${decade}` : String(10 ** decade);
}

/** A logarithmic scale in whole decades, six at most, for colours and for the lengths of bars. */
function scaleOf(arrays) {
  let [low, high] = [Infinity, -Infinity];
  for (const array of arrays) {
    for (const value of array) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const top = high === -Infinity ? 0 : Math.ceil(high / Math.LN10);
  const bottom = low === Infinity ? top - 1 : Math.min(top - 1, Math.max(top - 6, Math.floor(low / Math.LN10)));
  return { bottom, top, at: (logprob) => Math.min(1, Math.max(0, (logprob / Math.LN10 - bottom) / (top - bottom))) };
}

function colourAt(share) {
  const colour = record.colours[Math.round(share * (record.colours.length - 1))];
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return { colour, ink: 0.2126 * red + 0.7152 * green + 0.0722 * blue > 102 ? "#000" : "#fff" };
}
