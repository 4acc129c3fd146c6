/* One image and what is said of it. */

/** A text in which some words are marked. It is never parsed: a caption may be any. */
function marked(text, words) {
  if (!words?.length) return [text];
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length);
  const whole = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped.join("|")})(?![\\p{L}\\p{N}\\p{M}])`, "giu");
  const parts = text.normalize("NFC").split(whole); // a letter and its accents as one character, as words have them
  return parts.map((part, i) => (i % 2 ? element("mark", "", part) : part)); // every second one is what was found
}

/** A cell that says of itself what stands above it, for where there is no room for columns. */
function cellOf(heading, className, ...parts) {
  const cell = element("td", className);
  cell.dataset.heading = heading;
  cell.append(...parts);
  return cell;
}

function cardOf(i, state, questions) {
  const image = record.images[i];
  const card = element("article");
  card.tabIndex = -1;
  card.dataset.image = i;
  card.setAttribute("aria-label", image.key);
  const figure = element("figure");
  if (image.seen) {
    const picture = element("img");
    Object.assign(picture, { src: image.seen, alt: "", decoding: "async" });
    figure.append(picture);
  } else figure.append(element("span", "unseen", "no picture kept"));
  figure.append(element("figcaption", "quiet", image.key));
  card.append(figure, toldTable(i, state, questions));
  return card;
}

/** The references, then a row per entry; the caption, then a column per question. */
function toldTable(i, { entries, metric, shots, filter }, questions) {
  const image = record.images[i];
  const asked = filter === "all" || metric !== ANSWERS ? image.questions : image.questions.filter((q) => questions.has(q));
  const captioned = image.captions.length > 0;
  const heading = metric === ANSWERS ? "caption" : `caption, ${metric.label}`;
  const table = element("table", "told");
  const [thead, tbody] = [element("thead"), element("tbody")];

  const head = element("tr");
  const titles = [...(captioned ? [heading] : []), ...asked.map((q) => record.questions[q].question)];
  head.append(element("td"), ...titles.map((title) => Object.assign(element("th", "", title), { scope: "col" })));
  thead.append(head);

  const truth = rowOf("truth", "references");
  if (captioned) {
    const list = element("ul");
    for (const reference of image.references) {
      const item = element("li");
      item.append(...marked(reference, image.nouns));
      list.append(item);
    }
    truth.append(cellOf("caption", "caption", list));
  }
  for (const q of asked) truth.append(cellOf(record.questions[q].question, "", record.questions[q].references.join(", ")));
  tbody.append(truth);

  for (const entry of entries) {
    const row = rowOf("", record.entries[entry].name, swatch(record.entries[entry]));
    if (captioned) {
      const value = metric === ANSWERS ? NaN : valueAt(metric, i, entry);
      const cell = cellOf(heading, "caption", ...marked(image.captions[entry] || "(nothing)", image.nouns));
      if (!Number.isNaN(value)) cell.append(judgement(value, metric));
      row.append(cell);
    }
    for (const q of asked) {
      const { text, value } = answerAt(q, entry, shots);
      row.append(cellOf(record.questions[q].question, "", text || "(nothing)", judgement(value, ANSWERS)));
    }
    tbody.append(row);
  }
  table.append(thead, tbody);
  return table;
}

function rowOf(className, name, ...before) {
  const row = element("tr", className);
  const header = element("th", "entry");
  header.scope = "row";
  header.append(...before, name);
  row.append(header);
  return row;
}

/** Right or wrong, and a number where that does not say it all. */
function judgement(value, metric) {
  if (Number.isNaN(value)) return "";
  if (!JUDGED.includes(metric.unit)) return element("span", "judged", number(value));
  const [name, sign] = value >= RIGHT ? ["right", "✓"] : value === 0 ? ["wrong", "✗"] : ["partly", number(value)];
  const made = element("span", `judged ${name}`, sign);
  made.title = `${name}: ${number(value)}`;
  return made;
}
