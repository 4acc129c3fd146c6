/* What can be asked of the record. An entry, an image, a question and a number of shots is its place in its list.
   Values are NaN where there is none. */

const RIGHT = 0.9; // an answer that three of ten people gave has 0.9 by VQA's formula; a recall so high is 1
const JUDGED = ["share", "similarity"]; // units in which 1 is right
const ANSWERS = { name: "answers", label: "answers", task: "vqa", unit: "share", direction: 1 };

for (const [name, values] of Object.entries(record.per_image)) record.per_image[name] = unpack(values);
record.accuracy = unpack(record.accuracy);
record.answers = unpack(record.answers);
record.images.forEach((image) => {
  image.questions = [];
});
record.questions.forEach((question, q) => record.images[question.image].questions.push(q));
const metrics = new Map(record.metrics.map((metric) => [metric.name, metric]));

/** By what an image can be judged: what has a value for it. */
function judges() {
  const known = record.metrics.filter(({ name }) => record.per_image[name]?.some((value) => !Number.isNaN(value)));
  return record.questions.length ? [...known, ANSWERS] : known;
}

function answerAt(q, entry, shots) {
  const i = (q * record.entries.length + entry) * record.shots.length + shots;
  return { text: record.texts[record.answers[i]], value: record.accuracy[i] };
}

function valueAt(metric, i, entry) {
  const n = record.per_image[metric.name].length / record.entries.length;
  return i < n ? record.per_image[metric.name][entry * n + i] : NaN;
}

/** What is judged of an image, each with a value and a text of every entry: its questions, or its caption as a whole. */
function itemsOf(i, metric, shots) {
  const image = record.images[i];
  const entries = [...record.entries.keys()];
  if (metric === ANSWERS) {
    return image.questions.map((question) => {
      const answers = entries.map((entry) => answerAt(question, entry, shots));
      return { question, values: answers.map(({ value }) => value), texts: answers.map(({ text }) => plain(text)) };
    });
  }
  const values = entries.map((entry) => valueAt(metric, i, entry));
  const told = metric.task !== "probe" && image.captions.length;
  return [{ question: null, values, texts: told ? image.captions.map(plain) : values.map(String) }];
}

/** Whether an item is to be shown, judged by the entries in view. */
const FILTERS = {
  all: () => true,
  differ: ({ texts }, { entries }) => new Set(entries.map((entry) => texts[entry])).size > 1,
  one: ({ values }, { entries }) => entries.filter((entry) => values[entry] >= RIGHT).length === 1,
  none: ({ values }, { entries }) => {
    const known = entries.map((entry) => values[entry]).filter((value) => !Number.isNaN(value));
    return known.length > 0 && known.every((value) => value < RIGHT);
  },
  beats: ({ values }, { first, second, metric }) => (values[first] - values[second]) * (metric.direction || 1) > 0,
};

/** The images to show, in order, each with the questions among its items that pass. */
function found({ entries, metric, shots, filter, sort, first, second, search }) {
  const words = plain(search).split(" ").filter(Boolean);
  const passing = [];
  for (const i of record.images.keys()) {
    if (!words.every((word) => textsOf(i).includes(` ${word}`))) continue;
    const items = itemsOf(i, metric, shots);
    const passed = items.filter((item) => FILTERS[filter](item, { entries, first, second, metric }));
    if (!passed.length && filter !== "all") continue;
    const differences = items.map(({ values }) => values[first] - values[second]).filter((d) => !Number.isNaN(d));
    const ahead = differences.reduce((sum, d) => sum + d, 0) / differences.length; // NaN of none
    passing.push({ i, questions: new Set(passed.map((item) => item.question)), ahead: ahead * (metric.direction || 1) });
  }
  if (sort === "data") return passing;
  const key = ({ ahead }) => (Number.isNaN(ahead) ? -Infinity : sort === "first" ? ahead : -ahead);
  return passing.sort((a, b) => (key(a) === key(b) ? a.i - b.i : key(b) - key(a)));
}

/** All that is said of an image, as words after blanks. */
function textsOf(i) {
  const image = record.images[i];
  image.texts ??= ` ${[
    image.key,
    ...image.references,
    ...image.captions,
    ...image.questions.flatMap((q) => [
      record.questions[q].question,
      ...record.questions[q].references,
      ...record.entries.flatMap((_, entry) => record.shots.map((_, shots) => answerAt(q, entry, shots).text)),
    ]),
  ]
    .map(plain)
    .join(" ")}`;
  return image.texts;
}

/** Words alone, in lower case, a letter and its accents as one character. */
function plain(text) {
  return text.toLowerCase().normalize("NFC").replace(/[^\p{L}\p{N}\p{M}]+/gu, " ").trim();
}

/** A difference between two entries over all images, the first minus the second; null where none was measured. */
function contrastOf(name, first, second) {
  const at = (record.contrasts[name] ?? []).find(([a, b]) => (a === first && b === second) || (a === second && b === first));
  if (!at || at[2] === null) return null;
  const [a, , value, low, high, p] = at;
  return a === first ? { value, low, high, p } : { value: -value, low: high && -high, high: low && -low, p };
}

/** Three digits or so. */
function number(value) {
  if (value === null || Number.isNaN(value)) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/^-(0\.0*)$/, "$1").replace("-", "−");
}
