// The browser of answers and the browser of rollouts. Every text that a model wrote is untrusted: it reaches the page as text
// nodes only, and characters that turn or hide text are shown by their names.
"use strict";

const PAGE = 10; // records on one page
const SHOWN = 3000; // characters of a text before it is folded
const COMPARED = 700; // words of a text that are held against another's

async function unpack(id) {
  const letters = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

// Characters that reorder, join or hide text, and control characters other than line ends and tabs.
const HIDDEN = /(?![\n\r\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;

function plain(text) {
  const parts = [];
  let rest = text;
  for (let found = rest.match(HIDDEN); found; found = rest.match(HIDDEN)) {
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(rest.slice(0, found.index), element("span", {class: "hidden-character", title: "invisible character"}, `U+${code}`));
    rest = rest.slice(found.index + found[0].length);
  }
  parts.push(rest);
  return parts;
}

const split = text => text.match(/[\p{L}\p{N}]+|\s+|[^\p{L}\p{N}\s]/gu) ?? [];
const isWord = token => /[\p{L}\p{N}]/u.test(token);

// Which words of a text are in the longest common subsequence with another text.
function common(words, others) {
  const rows = words.length, columns = others.length;
  const best = Array.from({length: rows + 1}, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      best[i][j] = words[i] === others[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < rows && j < columns;) {
    if (words[i] === others[j]) { kept.add(i); i++; j++; }
    else if (best[i + 1][j] >= best[i][j + 1]) i++;
    else j++;
  }
  return kept;
}

// A text, with the words marked that another text does not have.
function compared(text, other) {
  if (other === null || other === text) return plain(text);
  const tokens = split(text);
  const words = tokens.filter(isWord).map(word => word.toLowerCase());
  const others = split(other).filter(isWord).map(word => word.toLowerCase());
  if (words.length > COMPARED || others.length > COMPARED) return plain(text);
  const kept = common(words, others);
  const parts = [];
  let word = 0, run = "", marked = false;
  const flush = () => {
    if (run) parts.push(...(marked ? [element("mark", {}, ...plain(run))] : plain(run)));
    run = "";
  };
  for (const token of tokens) {
    const own = isWord(token) ? !kept.has(word++) : marked && /\s/.test(token);
    if (own !== marked) { flush(); marked = own; }
    run += token;
  }
  flush();
  return parts;
}

function written(text, other = null) {
  if (!text.trim()) return element("p", {class: "empty"}, "(no answer)");
  if (text.length <= SHOWN) return element("p", {class: "written", dir: "auto"}, ...compared(text, other));
  const shown = element("p", {class: "written", dir: "auto"}, ...plain(text.slice(0, SHOWN)), "…");
  const more = element("button", {type: "button", onclick: () => {
    shown.replaceChildren(...plain(text));
    more.remove();
  }}, `Show all ${text.length.toLocaleString("en")} characters`);
  return element("div", {}, shown, more);
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => element("option", {value}, label)));
  if (chosen !== undefined) select.value = chosen;
}

const signed = value => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

async function browseAnswers() {
  const data = await unpack("answers-data");
  const {records, answers, scores, names} = data;
  const models = Object.keys(answers);
  const count = records.id.length;
  const byId = id => document.getElementById(id);
  const label = Object.fromEntries(data.metrics.map(metric => [metric.name, metric.label]));
  const metrics = data.metrics.filter(metric => models.some(model => scores[model][metric.name]));
  const less = Object.fromEntries(metrics.map(metric => [metric.name, metric.less]));
  const texts = Array.from({length: count}, (_, i) => [
    records.id[i], records.context[i], records.question[i], records.answer[i], ...models.map(model => answers[model].prediction[i]),
  ].join("\n").toLowerCase());

  // Ratings are kept in this browser, where it allows that. A rating belongs to one answer, so that those of another run, or of
  // an answer that has changed, stay where they are and do not count here.
  const memory = "ecg-grpo ratings";
  let ratings = {};
  const key = (model, i) => JSON.stringify([records.id[i], model, answers[model].digest[i]]);
  const here = new Set(models.flatMap(model => records.id.map((_, i) => key(model, i))));
  function remember() {
    try { ratings = JSON.parse(localStorage.getItem(memory)) ?? ratings; } catch { /* kept for this visit only */ }
  }
  const given = () => Object.entries(ratings).filter(([name]) => here.has(name));
  const rating = (model, i) => ratings[key(model, i)];
  function rate(model, i, value) {
    remember(); // another window may have written
    if (rating(model, i) === value) delete ratings[key(model, i)];
    else ratings[key(model, i)] = value;
    try { localStorage.setItem(memory, JSON.stringify(ratings)); } catch { /* see above */ }
    tell();
  }
  function tell() {
    const number = given().length;
    byId("rated").textContent = number ? `${number} rated` : "";
    byId("export").disabled = !number;
  }

  const every = values => [...new Set(values)].sort().map(value => [value, value]);
  options(byId("task"), [["", "all"], ...every(records.task)]);
  options(byId("kind"), [["", "all"], ...every(records.kind)]);
  options(byId("pair"), data.pairs.map((pair, i) => [i, `${names[pair[0]]} − ${names[pair[1]]}`]));
  options(byId("metric"), metrics.map(metric => [metric.name, metric.label + (metric.reward ? " †" : "")]));
  options(byId("only"), [["", "all answers"], ["t", "cut off"], ["e", "empty"], ["m", "malformed"], ["rated", "rated"], ["unrated", "not rated"]]);
  options(byId("against"), [["reference", "the reference"], ...models.map(model => [model, names[model]]), ["", "nothing"]]);
  const start = {find: "", task: "", kind: "", pair: "0", metric: metrics[0].name, winner: "", only: "", low: "", high: "", order: "", against: "reference"};
  const pair = () => data.pairs[Number(byId("pair").value)] ?? [models[0], models[0]];
  function nameThePair() {
    const [one, other] = pair().map(model => names[model]);
    const {winner, order} = {winner: byId("winner").value, order: byId("order").value};
    options(byId("winner"), [["", "any"], ["1", one], ["-1", other], ["0", "neither"]], winner);
    options(byId("order"), [["", "as in the file"], ["gain", `largest gain of ${one}`], ["loss", `largest loss of ${one}`], ["best", `best ${one}`], ["worst", `worst ${one}`]], order);
  }
  nameThePair();

  let chosen = [], page = 0;
  const score = (model, i) => scores[model][byId("metric").value]?.[i] ?? null;
  const goodness = (model, i) => score(model, i) === null ? null : less[byId("metric").value] ? -score(model, i) : score(model, i);
  function gain(i) {
    const [one, other] = pair().map(model => goodness(model, i));
    return one === null || other === null ? null : one - other;
  }
  function filter() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [task, kind, winner, only, order] = ["task", "kind", "winner", "only", "order"].map(id => byId(id).value);
    const bound = id => byId(id).value === "" ? null : Number(byId(id).value);
    const low = bound("low"), high = bound("high"), [one] = pair();
    chosen = [];
    for (let i = 0; i < count; i++) {
      if (task && records.task[i] !== task || kind && records.kind[i] !== kind) continue;
      if (winner !== "" && (gain(i) === null || Math.sign(gain(i)) !== Number(winner))) continue;
      const value = score(one, i);
      if (low !== null && !(value !== null && value >= low) || high !== null && !(value !== null && value <= high)) continue;
      if (only.length === 1 && !models.some(model => answers[model].state[i].includes(only))) continue;
      if (only.length > 1 && models.some(model => rating(model, i) !== undefined) !== (only === "rated")) continue;
      if (words.length && !words.every(word => texts[i].includes(word))) continue;
      chosen.push(i);
    }
    const by = {gain: i => -(gain(i) ?? -Infinity), loss: i => gain(i) ?? Infinity, best: i => -(goodness(one, i) ?? -Infinity), worst: i => goodness(one, i) ?? Infinity}[order];
    if (by) chosen.sort((i, j) => (by(i) === by(j) ? i - j : by(i) - by(j)));
    page = 0;
    show();
  }

  // Blind: the same order for the same record, and every order as often as any other.
  function weight(text) {
    let hash = 2166136261;
    for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
    hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
    hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
    return (hash ^ hash >>> 16) >>> 0;
  }
  const shuffled = i => [...models].sort((one, other) => weight(records.id[i] + one) - weight(records.id[i] + other));

  function panel(model, i, heading, blind) {
    const answer = answers[model], state = answer.state[i], against = byId("against").value;
    const other = against === "reference" ? records.answer[i] : against && !blind ? answers[against].prediction[i] : null;
    const notes = [state.includes("t") && "cut off", state.includes("e") && "empty", state.includes("m") && "malformed"].filter(Boolean);
    const value = score(model, i);
    const buttons = [[1, "right"], [0.5, "partly"], [0, "wrong"]].map(([points, name]) => {
      const button = element("button", {type: "button", "aria-pressed": rating(model, i) === points, onclick: () => {
        rate(model, i, points);
        for (const each of group.children) each.setAttribute("aria-pressed", rating(model, i) === each.points);
      }}, name);
      button.points = points;
      return button;
    });
    const group = element("div", {class: "rating", role: "group", "aria-label": `Your rating of ${heading}`}, ...buttons);
    return element("div", {class: "panel"},
      element("h4", {class: blind ? null : `name-${model}`}, heading,
        blind || value === null ? null : element("span", {class: "score"}, value.toFixed(2)),
        ...notes.map(note => element("span", {class: "flag"}, note))),
      answer.reasoning[i] ? element("details", {}, element("summary", {}, "Reasoning"), written(answer.reasoning[i])) : null,
      written(answer.prediction[i], other),
      answer.raw[i] !== null ? element("details", {}, element("summary", {}, "What the model wrote"), written(answer.raw[i])) : null,
      group);
  }

  function card(i) {
    const blind = byId("blind").checked, difference = gain(i), [one, other] = pair();
    const order = blind ? shuffled(i) : models;
    const id = `record=${encodeURIComponent(records.id[i])}`;
    return element("article", {class: "record", tabindex: "-1", id},
      element("div", {class: "head"}, element("a", {href: `#${id}`, title: "Link to this record"}, ...plain(records.id[i])), ` · ${records.kind[i]}`,
        blind || difference === null ? null : element("span", {class: difference > 0 ? "up" : difference < 0 ? "down" : ""},
          ` · ${names[one]} − ${names[other]}: ${signed(difference)} ${label[byId("metric").value]}`)),
      records.context[i] ? element("details", {}, element("summary", {}, "Context"), written(records.context[i])) : null,
      element("div", {class: "question written", dir: "auto"}, ...plain(records.question[i])),
      element("div", {class: "answers"},
        element("div", {class: "panel"}, element("h4", {}, "Reference"), written(records.answer[i])),
        ...order.map((model, place) => panel(model, i, blind ? `Answer ${"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place] ?? place}` : names[model], blind))));
  }

  function show() {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("records").replaceChildren(...chosen.slice(page * PAGE, (page + 1) * PAGE).map(card));
    byId("found").textContent = `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} records`;
    byId("place").textContent = `Page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
  }
  function turn(pages) {
    page += pages;
    show();
    byId("answer-controls").scrollIntoView();
  }

  // A link to one record shows it, whatever was filtered before.
  function follow() {
    if (!location.hash.startsWith("#record=")) return;
    let id;
    try { id = decodeURIComponent(location.hash.slice(8)); } catch { return; }
    const i = records.id.indexOf(id);
    if (i < 0) return;
    if (!chosen.includes(i)) { reset(); }
    page = Math.floor(chosen.indexOf(i) / PAGE);
    show();
    const found = byId(`record=${encodeURIComponent(id)}`);
    found.scrollIntoView();
    found.focus({preventScroll: true});
  }
  function reset() {
    for (const [id, value] of Object.entries(start)) byId(id).value = value;
    byId("blind").checked = false;
    nameThePair();
    filter();
  }
  function exportRatings() {
    const quoted = text => `"${String(text).replaceAll('"', '""')}"`;
    remember();
    const lines = given().map(([name, value]) => [...JSON.parse(name).map(quoted), value].join(","));
    const url = URL.createObjectURL(new Blob([["id,system,answer,rating", ...lines.sort()].join("\r\n") + "\r\n"], {type: "text/csv"}));
    element("a", {href: url, download: "ratings.csv"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  let waiting;
  byId("find").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  for (const id of ["task", "kind", "winner", "only", "order", "low", "high"]) byId(id).addEventListener("change", filter);
  for (const id of ["pair", "metric"]) byId(id).addEventListener("change", () => { nameThePair(); filter(); });
  for (const id of ["against", "blind"]) byId(id).addEventListener("change", show);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("reset").addEventListener("click", reset);
  byId("export").addEventListener("click", exportRatings);
  addEventListener("hashchange", follow);
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const step = {j: 1, k: -1}[event.key];
    if (event.key === "/") { event.preventDefault(); byId("find").focus(); }
    else if (event.key === "n" && !byId("next").disabled) turn(1);
    else if (event.key === "p" && !byId("previous").disabled) turn(-1);
    else if (step) {
      const cards = [...byId("records").children];
      const place = cards.indexOf(document.activeElement.closest(".record"));
      const next = cards[place < 0 ? (step > 0 ? 0 : cards.length - 1) : place + step];
      if (next) { next.focus({preventScroll: true}); next.scrollIntoView(); }
    }
  });
  remember();
  tell();
  reset();
  follow();
}

async function browseRollouts() {
  const data = await unpack("rollouts-data");
  const steps = [...new Set(data.rows.map(row => row.step))].sort((one, other) => one - other);
  const slider = document.getElementById("step"), name = document.getElementById("step-name"), place = document.getElementById("completions");
  if (!steps.length) {
    slider.disabled = true;
    place.replaceChildren(element("p", {class: "empty"}, "(no completions)"));
    return;
  }
  if (steps.length < data.steps) {
    document.getElementById("rollout-note").append(` ${steps.length} of ${data.steps} steps are shown, evenly over the run.`);
  }
  slider.max = steps.length - 1;
  function show() {
    const step = steps[Number(slider.value)];
    name.textContent = `step ${step}`;
    const groups = new Map();
    for (const row of data.rows.filter(row => row.step === step)) groups.set(row.id, [...groups.get(row.id) ?? [], row]);
    place.replaceChildren(...[...groups.values()].map(rows => element("article", {class: "record"},
      element("div", {class: "head"}, ...plain(rows[0].id)),
      element("div", {class: "question written", dir: "auto"}, ...plain(rows[0].question)),
      element("details", {}, element("summary", {}, "Reference"), written(rows[0].answer)),
      element("div", {class: "scroll"}, element("table", {},
        element("thead", {}, element("tr", {}, element("th", {class: "text"}, "Completion"), ...data.rewards.map(reward => element("th", {}, reward)), element("th", {}, "Advantage"))),
        element("tbody", {}, ...[...rows].sort((one, other) => other.advantage - one.advantage).map(row => element("tr", {},
          element("td", {class: "text"}, written(row.completion)),
          ...data.rewards.map(reward => element("td", {}, row[reward] === null ? "–" : row[reward].toFixed(2))),
          element("td", {class: row.advantage > 0 ? "up" : row.advantage < 0 ? "down" : ""}, row.advantage === null ? "–" : signed(row.advantage))))))))));
  }
  slider.addEventListener("input", show);
  show();
}

for (const [browse, place] of [[browseAnswers, "records"], [browseRollouts, "completions"]]) {
  browse().catch(error => {
    console.error(error);
    document.getElementById(place).textContent = "This browser cannot show them; a newer one can.";
  });
}
